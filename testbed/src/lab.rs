//! Everything around one resource's workers: a real server with the streams they need, a contract, participants, and what
//! can be read of the outcome.

use crate::binaries;
use crate::process::{Process, ProcessBuilder};
use crate::{NatsServer, User, eventually};
use anyhow::{Context, Result, anyhow};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tidemill_core::contract::{
    CONTRACT_VERSION, Connection, Contract, ProjectionWorkload, SagaWorkload, StreamBinding,
    Workload,
};
use tidemill_core::control::{Reply, saga_verb};
use tidemill_core::definition::{
    ProjectionDefinition, ProjectionPolicy, SagaDefinition, Start, StreamRef,
};
use tidemill_core::names::{COUNTERS_BUCKET, Kind, ResourceId, SUMMARIES_BUCKET};
use tidemill_core::status::{InstanceSummary, SagaCounters, TriggerCounters};
use tidemill_nats::provision::{Mark, StreamPlan, ensure};
use tidemill_nats::{KvBucket, Nats, Publisher, ReadFrom, Reader, StoredMessage, permissions};

/// What the names of workers' users begin with.
const WORKER: &str = "worker";
/// Longest wait for an answer before it is asked for again.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A resource's surroundings. Namespace `shop`; its EventStream is `shop/orders` with prefix `shop.orders`.
pub struct Lab {
    /// The server.
    pub server: NatsServer,
    /// A connection for the test itself.
    pub nats: Nats,
    /// What workers are given.
    pub contract: Contract,
    folder: tempfile::TempDir,
    /// The contracts that workers were started with.
    told: Mutex<Vec<Contract>>,
    /// What workers may be refused.
    refusable: Vec<String>,
}

/// No worker of any test asks for more than `tidemill permissions` lists.
impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut refused = self.server.refused();
        refused.retain(|line| {
            let may_be = |subject: &String| line.contains(&format!("Subject {subject:?}"));
            line.contains(&format!("user:{WORKER}")) && !self.refusable.iter().any(may_be)
        });
        assert!(refused.is_empty(), "workers were refused: {refused:#?}");
    }
}

fn projection(name: &str, definition: ProjectionDefinition) -> (ResourceId, Workload) {
    let resource = ResourceId::new(Kind::Projection, "shop", name);
    let workload = ProjectionWorkload {
        starts: vec![Start::Beginning; definition.sources.len()],
        policy: ProjectionPolicy::default(),
        rows_bucket: resource.rows_bucket(),
        parked_stream: resource.parked_stream(),
        suspend: false,
        definition,
    };
    (resource, Workload::Projection(workload))
}

impl Lab {
    /// A server of its own, with everything made for this saga.
    ///
    /// # Errors
    /// If the server can't be started or a stream can't be made.
    pub async fn saga(name: &str, definition: SagaDefinition) -> Result<Lab> {
        let server = NatsServer::builder().refuse_strangers();
        Self::on(server.start().await?, name, definition).await
    }

    /// The same on a server that is there.
    ///
    /// # Errors
    /// If a stream can't be made.
    pub async fn on(server: NatsServer, name: &str, definition: SagaDefinition) -> Result<Lab> {
        let resource = ResourceId::new(Kind::Saga, "shop", name);
        let workload = SagaWorkload {
            closing: None,
            starts: vec![Start::Beginning],
            log_stream: resource.log_stream(),
            parked_stream: resource.parked_stream(),
            partitions: 64,
            summaries: true,
            suspend: false,
            definition,
        };
        Self::with(server, resource, Workload::Saga(workload)).await
    }

    /// The same saga whose worker writes no summaries.
    #[must_use]
    pub fn without_summaries(mut self) -> Lab {
        if let Workload::Saga(workload) = &mut self.contract.workload {
            workload.summaries = false;
        }
        self
    }

    /// The same, in which workers may be refused a subject: the test is about that.
    #[must_use]
    pub fn refusing(mut self, subject: &str) -> Lab {
        self.refusable.push(subject.to_owned());
        self
    }

    /// A projection's surroundings on a server that is there.
    ///
    /// # Errors
    /// If a stream can't be made.
    pub async fn projection(
        server: NatsServer,
        name: &str,
        definition: ProjectionDefinition,
    ) -> Result<Lab> {
        let (resource, workload) = projection(name, definition);
        Self::with(server, resource, workload).await
    }

    /// Another projection on the same server, instead of this one.
    ///
    /// # Errors
    /// If a stream can't be made.
    pub async fn another_projection(
        mut self,
        name: &str,
        definition: ProjectionDefinition,
    ) -> Result<Lab> {
        (self.contract.resource, self.contract.workload) = projection(name, definition);
        self.provision().await?;
        Ok(self)
    }

    async fn with(server: NatsServer, resource: ResourceId, workload: Workload) -> Result<Lab> {
        let connection = Connection::plain(&server.admin_url());
        let binding = StreamBinding {
            stream: orders(),
            name: "shop_orders".to_owned(),
            prefix: "shop.orders".to_owned(),
            capture: Vec::new(),
        };
        let contract = Contract {
            version: CONTRACT_VERSION,
            resource,
            connection: connection.clone(),
            streams: vec![binding],
            workload,
        };
        let nats = Nats::connect(&connection, "lab").await?;
        let lab = Lab {
            server,
            nats,
            contract,
            folder: tempfile::tempdir()?,
            told: Mutex::default(),
            refusable: Vec::new(),
        };
        lab.provision().await?;
        Ok(lab)
    }

    async fn provision(&self) -> Result<()> {
        let (resource, root) = (
            &self.contract.resource,
            &self.contract.connection.subject_root,
        );
        let mark = || Mark::of("test", resource, "1");
        let mut plans = vec![
            StreamPlan::new(
                "shop_orders",
                vec!["shop.orders.>".to_owned()],
                Mark::event_stream("test", "shop", "orders", "1"),
            ),
            StreamPlan::parked(resource, root, mark()),
        ];
        plans.push(match resource.kind {
            Kind::Saga => StreamPlan::saga_log(resource, root, mark()),
            Kind::Projection => StreamPlan::rows(resource, mark()),
        });
        plans.extend(StreamPlan::shared_buckets("1"));
        for plan in plans {
            ensure(&self.nats, &plan)
                .await
                .with_context(|| plan.name.clone())?;
        }
        Ok(())
    }

    /// Starts a worker as a process; if the server refuses strangers, as a user with the permissions that it needs and no others.
    ///
    /// # Errors
    /// If it can't be built or started.
    pub fn worker(&self, pod: &str) -> Result<Process> {
        self.worker_with(pod, &self.contract, |builder| builder)
    }

    /// Starts a worker with another contract, or with changes to how the process is started.
    ///
    /// # Errors
    /// If it can't be built or started.
    pub fn worker_with(
        &self,
        pod: &str,
        contract: &Contract,
        change: impl FnOnce(ProcessBuilder) -> ProcessBuilder,
    ) -> Result<Process> {
        let file: PathBuf = self.folder.path().join(format!("contract-{pod}.json"));
        let mut told = contract.clone();
        if self.server.refuses_strangers() {
            told.connection.servers = vec![self.server.url_for(&self.user(contract)?)];
        }
        std::fs::write(&file, told.to_json())?;
        let address = self.address_file(pod);
        if address.exists() {
            std::fs::remove_file(&address)?;
        }
        let builder = Process::builder(binaries::worker()?)
            .arg("--contract")
            .arg(&file)
            .arg("--ready-file")
            .arg(&address)
            .args(["--listen", "127.0.0.1:0", "--pod", pod])
            .env("TIDEMILL_LOG_FORMAT", "text")
            .name(format!("worker {pod}"));
        Ok(change(builder).spawn()?)
    }

    /// A user with the permissions that the workers of a contract need, and no others: those of earlier contracts too, as instances may
    /// run that were started with them.
    fn user(&self, contract: &Contract) -> Result<String> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let name = |number: usize| format!("{WORKER}-{number}");
        if let Some(number) = told.iter().position(|known| known == contract) {
            return Ok(name(number));
        }
        let earlier = told.iter().map(permissions::worker);
        let permissions =
            earlier.fold(permissions::worker(contract), permissions::Permissions::and);
        let name = name(told.len());
        let user = User::new(&name).permissions(permissions);
        self.server.add_user(user)?;
        told.push(contract.clone());
        Ok(name)
    }

    fn address_file(&self, pod: &str) -> PathBuf {
        self.folder.path().join(format!("address-{pod}"))
    }

    /// What a worker says at an endpoint: `/readyz`, `/metrics`.
    ///
    /// # Errors
    /// If it doesn't serve yet.
    pub async fn look(&self, pod: &str, path: &str) -> Result<String> {
        let address = std::fs::read_to_string(self.address_file(pod))?;
        Ok(crate::http::get(address.trim(), path).await?)
    }

    /// The value of a metric of a worker, without `tidemill_`; 0 if it isn't there.
    ///
    /// # Errors
    /// If the worker doesn't serve yet.
    pub async fn metric(&self, pod: &str, name: &str) -> Result<f64> {
        let text = self.look(pod, "/metrics").await?;
        let line = format!("tidemill_{name} ");
        let value = text.lines().find_map(|text| text.strip_prefix(&line));
        Ok(value.and_then(|text| text.parse().ok()).unwrap_or(0.0))
    }

    /// Every event of the EventStream, oldest first.
    ///
    /// # Errors
    /// If it can't be read.
    pub async fn events(&self) -> Result<Vec<StoredMessage>> {
        self.messages("shop_orders", Vec::new()).await
    }

    /// Every message of a stream that matches one of the filters.
    ///
    /// # Errors
    /// If it can't be read.
    pub async fn messages(&self, stream: &str, filters: Vec<String>) -> Result<Vec<StoredMessage>> {
        let mut reader = Reader::open_to_end(&self.nats, stream, filters, ReadFrom::First).await?;
        let mut messages = Vec::new();
        while reader.next_batch(1024, &mut messages).await? > 0 {}
        Ok(messages)
    }

    /// Asks the workers, again while nobody answers.
    ///
    /// # Errors
    /// What the worker answers, or that none does.
    pub async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        verb: &str,
        body: &impl serde::Serialize,
    ) -> Result<T> {
        let subject = self
            .contract
            .resource
            .control_subject(self.nats.root(), verb);
        let body = serde_json::to_vec(body)?;
        let answer = eventually(
            &format!("an answer to {verb}"),
            Duration::from_secs(60),
            || async {
                let mut request = async_nats::Request::new().payload(body.clone().into());
                if verb != saga_verb::AWAIT {
                    // While owners change nobody answers.
                    request = request.timeout(Some(ANSWER_MAX));
                }
                let client = self.nats.client();
                client.send_request(subject.clone(), request).await
            },
        )
        .await;
        match serde_json::from_slice(&answer.payload)? {
            Reply::Ok(answer) => Ok(answer),
            Reply::Error(error) => Err(anyhow!("{}: {}", error.reason, error.message)),
        }
    }

    /// Counters of all partitions, added up.
    ///
    /// # Errors
    /// If they can't be read.
    pub async fn counters(&self) -> Result<SagaCounters> {
        let prefix = self.contract.resource.key_prefix();
        let mut total = SagaCounters::default();
        for (key, entry) in self.bucket(COUNTERS_BUCKET).entries(&prefix).await? {
            if key.contains(".start.") {
                continue;
            }
            let one: SagaCounters = serde_json::from_slice(&entry.value)?;
            add(&mut total, one);
        }
        Ok(total)
    }

    /// Summaries of all instances by id.
    ///
    /// # Errors
    /// If they can't be read.
    pub async fn summaries(&self) -> Result<BTreeMap<String, InstanceSummary>> {
        let prefix = self.contract.resource.key_prefix();
        let mut all = BTreeMap::new();
        for entry in self
            .bucket(SUMMARIES_BUCKET)
            .entries(&prefix)
            .await?
            .into_values()
            .filter(|entry| !entry.deleted)
        {
            let summary: InstanceSummary = serde_json::from_slice(&entry.value)?;
            all.insert(summary.id.clone(), summary);
        }
        Ok(all)
    }

    /// One of the shared buckets.
    pub fn bucket(&self, name: &str) -> KvBucket {
        KvBucket::new(&Publisher::new(&self.nats, 256), name)
    }
}

/// The EventStream of every lab.
pub fn orders() -> StreamRef {
    StreamRef {
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
    }
}

fn add(total: &mut SagaCounters, one: SagaCounters) {
    total.started += one.started;
    total.completed += one.completed;
    total.compensated += one.compensated;
    total.running += one.running;
    total.parked += one.parked;
    total.retried += one.retried;
    total.late_replies += one.late_replies;
    total.forged_replies += one.forged_replies;
    total.unreadable += one.unreadable;
    // Every partition sees every one.
    total.log_resets = total.log_resets.max(one.log_resets);
    total.log_sequence = total.log_sequence.max(one.log_sequence);
    for (stream, trigger) in one.triggers {
        let sum: &mut TriggerCounters = total.triggers.entry(stream).or_default();
        sum.position = sum.position.max(trigger.position);
        sum.seen += trigger.seen;
        sum.matched += trigger.matched;
        sum.skipped += trigger.skipped;
        sum.existing += trigger.existing;
        sum.parked += trigger.parked;
        sum.accepted = sum.accepted.max(trigger.accepted);
    }
}
