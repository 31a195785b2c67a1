//! A place of one's own for pods to run: here each is a child process of this program, with a folder for its output. The
//! image is not used, and nothing keeps the command from the rest of the machine.
//!
//!     cargo run --example own_backend

use async_trait::async_trait;
use hops_k8s::plugin::{CallCtx, EMBEDDED, Plugin};
use hops_k8s::pods::{Error, Excess, Identity, Pod, PodSpec, PodStatus, Pods};
use hops_k8s::policy::Policy;
use std::io::ErrorKind;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::fs::{self, File};
use tokio::io::AsyncRead;
use tokio::process::{Child, Command};

struct Children;

#[async_trait]
impl Pods for Children {
    async fn create(&self, spec: PodSpec, identity: Identity) -> Result<Box<dyn Pod>, Error> {
        let other = |error: std::io::Error| Error::Other(error.to_string());
        let folder = tempfile::tempdir().map_err(other)?;
        let log = std::fs::File::create(folder.path().join("log")).map_err(other)?;
        let [program, arguments @ ..] = &*spec.command else {
            return Err(Error::Invalid("command: a child process needs one".into()));
        };
        let output = folder.path().join("output");
        fs::create_dir(&output).await.map_err(other)?;
        let child = Command::new(program)
            .args(arguments)
            .args(&spec.args)
            .envs(spec.env)
            .env("HIPHOPS_OUTPUT_DIR", &output)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(other)?)
            .stderr(log)
            // A pod goes with its call.
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::Invalid(format!("command: {program}: {error}")))?;
        Ok(Box::new(ChildPod { name: identity.name, child, folder, told: Told::Nothing }))
    }
}

struct ChildPod {
    name: String,
    child: Child,
    folder: TempDir,
    told: Told,
}

enum Told {
    Nothing,
    Running,
    End,
}

#[async_trait]
impl Pod for ChildPod {
    fn name(&self) -> &str {
        &self.name
    }

    async fn changed(&mut self) -> Result<PodStatus, Error> {
        match self.told {
            Told::Nothing => {
                self.told = Told::Running;
                Ok(PodStatus::running())
            }
            Told::Running => {
                let status = self.child.wait().await.map_err(|error| Error::Other(error.to_string()))?;
                self.told = Told::End;
                let code = status.code().unwrap_or(137);
                Ok(PodStatus::exited(code, if code == 0 { "Completed" } else { "Error" }, &self.tail_logs(20).await?))
            }
            Told::End => std::future::pending().await,
        }
    }

    async fn read_file(&mut self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        match fs::read(self.folder.path().join("output").join(path)).await {
            Ok(content) if content.len() as u64 > limit => {
                Err(Error::TooLarge(Excess { size: content.len() as u64, limit }))
            }
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Other(error.to_string())),
        }
    }

    async fn tail_logs(&mut self, lines: u32) -> Result<String, Error> {
        let log = fs::read(self.folder.path().join("log")).await.map_err(|error| Error::Other(error.to_string()))?;
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().collect();
        let skipped = all.len().saturating_sub(lines as usize);
        Ok(all.get(skipped..).unwrap_or_default().join("\n"))
    }

    async fn follow_logs(&self) -> Result<Pin<Box<dyn AsyncRead + Send>>, Error> {
        let log = File::open(self.folder.path().join("log")).await;
        Ok(Box::pin(log.map_err(|error| Error::Other(error.to_string()))?))
    }

    async fn delete(&mut self) -> Result<(), Error> {
        self.child.kill().await.map_err(|error| Error::Other(error.to_string()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plugin = Plugin::load(EMBEDDED)?;
    let ctx = CallCtx::new(Arc::new(Children), Arc::new(Policy::default()));
    let inputs = r#"{
        "image": "bash:5",
        "command": ["bash", "-c", "echo '{\"greeting\": \"Hello world!\"}' > $HIPHOPS_OUTPUT_DIR/$HIPHOPS_RESULT_PATH"]
    }"#;
    println!("{}", plugin.call(ctx, "run", inputs).await?);
    Ok(())
}
