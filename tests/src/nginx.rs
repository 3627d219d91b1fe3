//! Real nginx in a guest.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Guest, Netns, http, poll_until};

/// How long nginx may take to start or stop.
const NGINX_TIME: Duration = Duration::from_secs(10);

/// A web server on port 80 of all addresses of a guest. It runs as a daemon, because the health script may start it
/// again; the lab kills it with its namespace, and so does dropping this.
#[derive(Debug)]
pub struct Nginx {
    netns: Netns,
    directory: PathBuf,
}

impl Nginx {
    /// Starts nginx in a guest; every path answers with `body`. Configuration and logs stand in the lab's directory.
    pub fn start(guest: &Guest, body: &str) -> Result<Self> {
        Self::start_in(guest.netns(), body)
    }

    /// The same anywhere.
    pub fn start_in(netns: &Netns, body: &str) -> Result<Self> {
        let netns = netns.clone();
        let directory = netns.directory().join(format!("{}-nginx", netns.label()));
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let nginx = Self { netns, directory };
        fs::write(nginx.directory.join("index.html"), body).context("cannot write nginx's page")?;
        nginx.write_health_script()?;
        nginx.begin()?;
        Ok(nginx)
    }

    /// Starts it again after [`Nginx::stop`].
    pub fn begin(&self) -> Result<()> {
        let text = self.render();
        fs::write(self.configuration(), text).context("cannot write nginx's configuration")?;
        let (directory, configuration) = (self.directory.to_string_lossy(), self.configuration());
        self.netns.check(&["nginx", "-p", &directory, "-c", &configuration.to_string_lossy()])?;
        poll_until(NGINX_TIME, "nginx to answer on 127.0.0.1", || {
            http::get(&self.netns, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80), "/", NGINX_TIME).ok()
        })?;
        Ok(())
    }

    /// Stops it for good: its configuration is gone too, so that the health script cannot start it again and reports
    /// a failure.
    pub fn stop(&self) -> Result<()> {
        fs::remove_file(self.configuration()).context("cannot remove nginx's configuration")?;
        self.crash()
    }

    /// Kills it; a health script repairs that.
    pub fn crash(&self) -> Result<()> {
        let Some(pid) = self.pid() else { bail!("nginx in {} does not run", self.netns.label()) };
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM).context("cannot end nginx")?;
        poll_until(NGINX_TIME, "nginx to end", || {
            (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        })
    }

    /// What a client has put at `/put/NAME`.
    pub fn uploaded(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.directory.join("put").join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// A script as the Cloudpods example has it: when nginx does not run, it starts it, and fails if it still does not
    /// run.
    pub fn health_script(&self) -> PathBuf {
        self.directory.join("check.sh")
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("nginx.conf")
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.join("nginx.pid")
    }

    fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()
    }

    fn render(&self) -> String {
        let directory = self.directory.display();
        let log = self.netns.directory().join(format!("{}-nginx.log", self.netns.label()));
        format!(
            "# Root, because nobody else may read the lab's directory everywhere.\n\
             user root;\n\
             worker_processes 1;\n\
             pid {pid};\n\
             error_log {log} notice;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n\
             \x20   access_log off;\n\
             \x20   default_type text/html;\n\
             \x20   client_body_temp_path {directory}/body;\n\
             \x20   proxy_temp_path {directory}/proxy;\n\
             \x20   fastcgi_temp_path {directory}/fastcgi;\n\
             \x20   uwsgi_temp_path {directory}/uwsgi;\n\
             \x20   scgi_temp_path {directory}/scgi;\n\
             \x20   server {{\n\
             \x20       listen 80;\n\
             \x20       root {directory};\n\
             \x20       location / {{ try_files /index.html =404; }}\n\
             \x20       location /put/ {{ dav_methods PUT; create_full_put_path on; client_max_body_size 64m; }}\n\
             \x20   }}\n\
             }}\n",
            pid = self.pid_file().display(),
            log = log.display(),
        )
    }

    fn write_health_script(&self) -> Result<()> {
        let script = format!(
            "#!/bin/sh\n\
             runs() {{ [ -s '{pid}' ] && kill -0 \"$(cat '{pid}')\" 2>/dev/null; }}\n\
             runs && exit 0\n\
             nginx -p '{directory}' -c '{configuration}' </dev/null >/dev/null 2>&1\n\
             sleep 0.2\n\
             runs || exit 1\n",
            pid = self.pid_file().display(),
            directory = self.directory.display(),
            configuration = self.configuration().display(),
        );
        let path = self.health_script();
        fs::write(&path, script).context("cannot write the health script")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .context("cannot make the health script executable")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if self.pid().is_some() {
            // The lab kills what is left with the namespace.
            let _ = self.crash();
        }
    }
}
