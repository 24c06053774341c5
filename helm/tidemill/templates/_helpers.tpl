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

{{- /* The operator's configuration, as it reads it. */ -}}
{{- define "tidemill.config" -}}
clusterId: {{ .Values.clusterId }}
replicas: {{ .Values.nats.replicas }}
nats:
  servers: {{ .Values.nats.servers | toJson }}
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
