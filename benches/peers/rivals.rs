//! The servers that the mirror is compared with: nginx and Debian's docker-registry, each with its usual settings
//! for the work, on loopback and in a folder of its own.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::daemon::{Log, Tidehold};
use crate::places;
use crate::support::parts::{Available, part, programs};
use crate::support::process::{Process, free_port};

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    /// nginx on the registry's own files, with sendfile: no cache, no question who may have what.
    NginxFiles,
    /// nginx as a cache before the registry, with sendfile and a lock for what nobody has yet.
    NginxCache,
    /// docker-registry as a pull-through cache.
    DockerRegistry,
    Tidehold,
}

impl Rival {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NginxFiles => "nginx, files",
            Self::NginxCache => "nginx, cache",
            Self::DockerRegistry => "docker-registry",
            Self::Tidehold => "Tidehold",
        }
    }

    /// Whether it can be run here.
    pub(crate) fn available(self) -> Available<()> {
        match self {
            Self::NginxFiles | Self::NginxCache => part("nginx").map(drop),
            Self::DockerRegistry => part("docker-registry").map(drop),
            Self::Tidehold => Ok(()),
        }
    }

    /// Starts it, empty, before the registry at this address, whose files are in this folder.
    pub(crate) fn start(self, origin: &str, files: &Path, log: Log) -> Server {
        match self {
            Self::NginxFiles => {
                let files = files.display();
                let location = format!(
                    "location ~ ^/v2/library/([^/]+)/blobs/sha256:([0-9a-f]+)$ {{ alias {files}/$1/blobs/$2; }}"
                );
                nginx(&location, "", log)
            }
            Self::NginxCache => nginx(
                &format!(
                    "location / {{ proxy_pass http://{origin}; proxy_cache kept; proxy_cache_valid 200 1h; \
                     proxy_cache_lock on; proxy_cache_lock_timeout 60s; proxy_cache_lock_age 60s; \
                     proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_max_temp_file_size 4096m; }}"
                ),
                "proxy_cache_path cache levels=1:2 keys_zone=kept:10m max_size=10g use_temp_path=off;",
                log,
            ),
            Self::DockerRegistry => docker_registry(origin),
            Self::Tidehold => {
                let tidehold =
                    Tidehold::start(&format!("http://{origin}"), "[tags]\nfresh_for = \"1h\"\n", log);
                Server {
                    address: tidehold.mirror(),
                    query: "?ns=docker.io",
                    running: Running::Tidehold(tidehold),
                }
            }
        }
    }
}

/// A server that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: String,
    /// What a client adds to each path.
    pub(crate) query: &'static str,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Tidehold(Tidehold),
    Other { process: Process, _folder: TempDir },
}

impl Server {
    /// The process that was started; what nginx uses, its children use.
    pub(crate) fn pid(&self) -> i32 {
        match &self.running {
            Running::Tidehold(tidehold) => tidehold.pid(),
            Running::Other { process, .. } => process.pid().as_raw(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx's workers outlive a master that is killed.
        if let Running::Other { process, .. } = &mut self.running {
            let pid = process.pid();
            process.terminate(pid);
        }
    }
}

fn nginx(location: &str, cache: &str, log: Log) -> Server {
    let folder = places::private();
    let at = folder.path();
    let tree = part("nginx").expect("nginx that was found to be available");
    let address = format!("127.0.0.1:{}", free_port());
    let access = match log {
        Log::Usual => "access_log access.log;",
        Log::Off => "access_log off;",
    };
    let config = format!(
        "daemon off; user root; worker_processes auto; pid nginx.pid; error_log error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000; {access}\n  \
         default_type application/octet-stream; client_body_temp_path body; proxy_temp_path proxy;\n  \
         fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n  {cache}\n  \
         server {{ listen {address}; {location} }}\n}}\n"
    );
    fs::write(at.join("nginx.conf"), config).expect("a configuration");
    let mut command = places::bound(programs(&tree).join("nginx"));
    let libraries =
        ["usr/lib", "lib"].iter().flat_map(|place| fs::read_dir(tree.join(place)).into_iter().flatten());
    let libraries = libraries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("plain paths"));
    command.arg("-p").arg(at).args(["-e", "error.log", "-c"]).arg(at.join("nginx.conf"));
    let process = Process::start_listening("nginx", &mut command, at, &address);
    Server { address, query: "", running: Running::Other { process, _folder: folder } }
}

fn docker_registry(origin: &str) -> Server {
    let folder = places::private();
    let program = programs(&part("docker-registry").expect("one that is available")).join("docker-registry");
    let address = format!("127.0.0.1:{}", free_port());
    let config = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n\
         proxy:\n  remoteurl: http://{origin}\n",
        folder.path().join("storage").display()
    );
    let file = folder.path().join("config.yml");
    fs::write(&file, config).expect("a configuration");
    let mut command = places::bound(program);
    command.arg("serve").arg(file);
    let process = Process::start_listening("docker-registry", &mut command, folder.path(), &address);
    Server { address, query: "", running: Running::Other { process, _folder: folder } }
}
