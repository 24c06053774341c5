{{- define "tidemill.labels" -}}
app.kubernetes.io/name: tidemill-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "tidemill.selector" -}}
app.kubernetes.io/name: tidemill-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* An image with its tag; takes a dictionary of image and chart. */ -}}
{{- define "tidemill.image" -}}
{{ .image.repository }}:{{ .image.tag | default .chart.AppVersion }}
{{- end }}

{{- define "tidemill.nats.selector" -}}
app.kubernetes.io/name: tidemill-nats
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tidemill.nats.labels" -}}
{{ include "tidemill.nats.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* The configuration of the NATS server of this chart. */ -}}
{{- define "tidemill.nats.config" -}}
server_name: $POD_NAME
port: 4222
http_port: 8222
jetstream {
  store_dir: /data
  max_file_store: {{ .Values.nats.storage.size }}
  max_memory_store: {{ .Values.nats.storage.memory }}
}
# Who may do what: made by the operator, in a Secret.
include ./auth.conf
{{- end }}

{{- /* What names of Secrets with credentials begin with. */ -}}
{{- define "tidemill.credentials" -}}
{{ .Release.Name }}-nats
{{- end }}

{{- /* The Secret that the NATS server of this chart waits for; the operator names it so. */ -}}
{{- define "tidemill.credentials.auth" -}}
{{ include "tidemill.credentials" . }}-auth{{ with int .Values.nats.rotation }}-{{ . }}{{ end }}
{{- end }}

{{- /* URLs of NATS servers, as JSON. */ -}}
{{- define "tidemill.servers" -}}
{{- if .Values.nats.enabled }}
{{- if or .Values.nats.credentialsSecret .Values.worker.credentialsSecret }}
{{- fail "nats.enabled excludes nats.credentialsSecret and worker.credentialsSecret: the operator makes credentials for the chart's own NATS" }}
{{- end }}
{{- if .Values.nats.servers }}{{ fail "nats.enabled and nats.servers exclude each other: leave out one of them" }}{{ end }}
{{- list (printf "nats://%s-nats.%s.svc:4222" .Release.Name .Release.Namespace) | toJson }}
{{- else }}
{{- if not .Values.nats.servers }}{{ fail "no NATS: name yours in nats.servers, or have one installed with nats.enabled=true" }}{{ end }}
{{- .Values.nats.servers | toJson }}
{{- end }}
{{- end }}

{{- /* The operator's configuration, as it reads it. */ -}}
{{- define "tidemill.config" -}}
clusterId: {{ .Values.clusterId }}
replicas: {{ .Values.nats.replicas }}
{{- with .Values.nats.maxStreamBytes }}
maxStreamBytes: {{ . }}
{{- end }}
{{- with .Values.takeover }}
takeover: {{ . }}
{{- end }}
deletionDeadlineSeconds: {{ .Values.deletionDeadlineSeconds }}
resumeLimitSeconds: {{ .Values.resumeLimitSeconds }}
{{- if .Values.nats.enabled }}
credentials:
  prefix: {{ include "tidemill.credentials" . }}
  rotation: {{ int .Values.nats.rotation }}
{{- end }}
nats:
  servers: {{ include "tidemill.servers" . }}
  {{- with .Values.nats.credentialsSecret }}
  credentialsFile: /etc/tidemill/nats/nats.creds
  {{- end }}
  {{- with .Values.nats.jetstreamDomain }}
  jetstreamDomain: {{ . }}
  {{- end }}
workers:
  image: {{ include "tidemill.image" (dict "image" .Values.worker.image "chart" .Chart) }}
  resources: {{ .Values.worker.resources | toJson }}
  {{- with .Values.worker.credentialsSecret }}
  credentialsSecret: {{ . }}
  {{- end }}
tenancy: {{ .Values.tenancy | toJson }}
{{- end }}
