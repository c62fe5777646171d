//! Dispatchers in processes of their own, on one broker and one registry, and what they say of themselves.

use std::{
    collections::BTreeMap,
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use fanfare_broker::{Settings, Topology};
use fanfare_model::{Endpoint, PartitionCount, Timestamp};
use fanfare_registry::NewEndpoint;
use fanfare_testkit::{TestBroker, eventually, wall_clock};
use fanfare_tests::{Program, fanfare_binary, open_registry};
use serde_json::Value;
use tempfile::TempDir;

use crate::{load::TENANT, rates::starts_in};

/// Eight for each of the dispatchers that there are at most.
const PARTITIONS: u16 = 32;

const SETTLED_WITHIN: Duration = Duration::from_secs(90);

/// The processes, by the id that a dispatcher has.
pub(crate) struct Fleet {
    url: String,
    home: TempDir,
    programs: BTreeMap<String, Program>,
    logs: Vec<PathBuf>,
}

impl Fleet {
    pub(crate) fn new(broker: &TestBroker) -> Self {
        Self {
            url: broker.url().to_owned(),
            home: TempDir::new().unwrap(),
            programs: BTreeMap::new(),
            logs: Vec::new(),
        }
    }

    /// Everything with as many partitions as the processes have.
    pub(crate) fn topology(&self) -> Topology {
        Topology::new(&Settings {
            url: self.url.clone().into(),
            partitions: PartitionCount::try_from(PARTITIONS).unwrap(),
            ..Settings::default()
        })
    }

    pub(crate) async fn register(
        &self,
        url: &str,
        adjust: impl FnOnce(&mut NewEndpoint),
    ) -> Endpoint {
        let registry = open_registry(&self.home).await;
        let wants = vec!["*".parse().unwrap()];
        let mut new = NewEndpoint::new(TENANT.parse().unwrap(), url.parse().unwrap(), wants);
        adjust(&mut new);
        let made = registry
            .create_endpoint(new, "proof", wall_clock().now())
            .await;
        registry.close().await;
        made.unwrap()
    }

    pub(crate) fn start_router(&mut self) {
        self.launch("router", "router");
    }

    pub(crate) fn start(&mut self, id: &str) {
        self.launch("dispatcher", id);
    }

    fn launch(&mut self, role: &str, id: &str) {
        let log = self
            .home
            .path()
            .join(format!("{id}-{}.log", self.logs.len()));
        let partitions = PARTITIONS.to_string();
        let settings = [
            ("FANFARE__BROKER__PARTITIONS", partitions.as_str()),
            ("FANFARE__DISPATCHER__ID", id),
            (
                "FANFARE__TELEMETRY__LOG_FILTER",
                "warn,fanfare_dispatcher=info",
            ),
            ("FANFARE__TELEMETRY__LOG_FORMAT", "json"),
        ];
        let into = Stdio::from(File::create(&log).unwrap());
        let program = Program::serve_logging(role, &self.url, &self.home, &settings, into);
        self.logs.push(log);
        self.programs.insert(id.to_owned(), program);
    }

    /// Ends one in order.
    pub(crate) fn stop(&mut self, id: &str) {
        let mut program = self.programs.remove(id).unwrap();
        assert_eq!(program.terminate(), Some(0), "{id} stops in order");
    }

    pub(crate) fn stop_all(&mut self) {
        for (_, mut program) in std::mem::take(&mut self.programs) {
            program.terminate();
        }
    }

    pub(crate) fn kill(&mut self, id: &str) {
        self.programs.remove(id).unwrap().kill();
    }

    pub(crate) fn signal(&self, id: &str, signal: &str) {
        let process = self.programs[id].id().to_string();
        let told = Command::new("kill").args(["-s", signal, &process]).status();
        assert!(told.unwrap().success());
    }

    /// What `fanfare dispatchers` prints.
    pub(crate) fn shares(&self) -> Vec<Value> {
        let shown = Command::new(fanfare_binary())
            .args(["dispatchers", "--output", "json"])
            .current_dir(self.home.path())
            .env("FANFARE__BROKER__URL", &self.url)
            .env("FANFARE__BROKER__PARTITIONS", PARTITIONS.to_string())
            .stderr(Stdio::null())
            .output()
            .unwrap();
        serde_json::from_slice(&shown.stdout).unwrap()
    }

    /// Waits until each of these, and nobody else, owns partitions, and each partition has one owner.
    pub(crate) async fn settled(&self, ids: &[&str]) {
        eventually(SETTLED_WITHIN, "one owner for each partition", async || {
            let shares = self.shares();
            let owned = |share: &Value| share["role"] == "owner";
            let by = |id: &&str| shares.iter().any(|share| share["dispatcher"] == **id);
            let known = |share: &Value| ids.iter().any(|id| share["dispatcher"] == **id);
            let all = shares.len() == usize::from(PARTITIONS);
            (all && shares.iter().all(|s| owned(s) && known(s)) && ids.iter().all(by)).then_some(())
        })
        .await;
    }

    /// Who owns the partition of an endpoint.
    pub(crate) async fn owner(&self, endpoint: &Endpoint) -> String {
        let key = self.topology().partition_of(endpoint.id).to_string();
        eventually(SETTLED_WITHIN, "an owner", async || {
            let shares = self.shares();
            let owners = shares
                .iter()
                .filter(|s| s["partition"] == key && s["role"] == "owner");
            let mut owners = owners.filter_map(|s| s["dispatcher"].as_str());
            owners.next().map(str::to_owned)
        })
        .await
    }

    /// When requests to an endpoint were started, as the dispatchers' logs tell, and in which run of a dispatcher.
    pub(crate) fn starts(&self, endpoint: &Endpoint) -> Vec<(Timestamp, String)> {
        let of = |log: &PathBuf| {
            let run = log.file_stem().unwrap().to_string_lossy().into_owned();
            let starts = starts_in(log, endpoint).into_iter();
            starts.map(move |at| (at, run.clone()))
        };
        self.logs.iter().flat_map(of).collect()
    }
}
