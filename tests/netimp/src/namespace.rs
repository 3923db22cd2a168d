//! Network namespaces and the devices in them, by way of `ip`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Runs `ip`; what it says is the error.
fn ip(namespace: Option<&str>, arguments: &[&str]) -> Result<String> {
    // `ip -n` would remount the root of the file system as well, which a chroot does not allow.
    let mut command = match namespace {
        None => Command::new("ip"),
        Some(namespace) => {
            let mut command = Command::new("nsenter");
            command.args([&format!("--net=/run/netns/{namespace}"), "ip"]);
            command
        }
    };
    let output = command.args(arguments).output().context("ip (iproute2) cannot be run")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", arguments.join(" "), words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A named namespace; one that was made here goes when this goes.
pub(crate) struct Namespace {
    name: String,
    made: bool,
}

impl Namespace {
    /// Makes a namespace. One of that name in which nothing runs any more is replaced: it was left
    /// by a run that could not clean up.
    pub(crate) fn make(name: &str) -> Result<Self> {
        if Self::exists(name)? {
            let inside = ip(None, &["netns", "pids", name])?;
            ensure!(inside.trim().is_empty(), "namespace {name} is there already, and in use");
            ip(None, &["netns", "delete", name])?;
        }
        ip(None, &["netns", "add", name])?;
        let namespace = Self { name: name.to_owned(), made: true };
        ip(Some(name), &["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Uses one that somebody else made.
    pub(crate) fn given(name: &str) -> Result<Self> {
        ensure!(Self::exists(name)?, "there is no namespace {name}; --create makes it");
        Ok(Self { name: name.to_owned(), made: false })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn exists(name: &str) -> Result<bool> {
        let list = ip(None, &["netns", "list"])?;
        Ok(list.lines().any(|line| line.split(' ').next() == Some(name)))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.made {
            // Nobody is left to be told.
            drop(ip(None, &["netns", "delete", &self.name]));
        }
    }
}

/// The addresses of one end of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

impl Addresses {
    /// Of link `index`; the far end is host 1, the near end host 2.
    pub(crate) const fn of(index: u8, host: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(10, 77, index, host),
            v6: Ipv6Addr::new(0xfd77, 0, 0, index as u16, 0, 0, 0, host as u16),
        }
    }
}

/// One end of a link: a TUN device whose packets this process carries. The kernel removes it when
/// the process ends, however that happens.
pub(crate) struct End {
    pub(crate) device: SyncDevice,
    namespace: Option<String>,
    name: String,
    own: Addresses,
    peer: Addresses,
}

impl End {
    /// Makes the device and moves it; `namespace` none: it stays in this process's namespace.
    pub(crate) fn make(
        namespace: Option<&str>,
        name: String,
        mtu: u16,
        own: Addresses,
        peer: Addresses,
    ) -> Result<Self> {
        let device = DeviceBuilder::new()
            .name(name.as_str())
            .mtu(mtu)
            .enable(false)
            .build_sync()
            .with_context(|| format!("TUN device {name} (root is needed)"))?;
        device.set_nonblocking(true)?;
        if let Some(namespace) = namespace {
            ip(None, &["link", "set", &name, "netns", namespace])?;
        }
        Ok(Self { device, namespace: namespace.map(str::to_owned), name, own, peer })
    }

    fn ip(&self, arguments: &[&str]) -> Result<String> {
        ip(self.namespace.as_deref(), arguments)
    }

    /// Takes it into use with its addresses; `default`: all traffic goes this way.
    pub(crate) fn up(&self, default: bool) -> Result<()> {
        let name = self.name.as_str();
        // The kernel's own chatter on link-local addresses would be counted as traffic.
        self.ip(&["link", "set", name, "addrgenmode", "none"])?;
        let (own, peer) = (self.own.v4.to_string(), self.peer.v4.to_string());
        self.ip(&["address", "add", &own, "peer", &peer, "dev", name])?;
        self.ip(&["link", "set", name, "up"])?;
        let (own, peer) = (self.own.v6.to_string(), self.peer.v6.to_string());
        self.ip(&["-6", "address", "add", &own, "peer", &peer, "dev", name, "nodad"])?;
        if default {
            self.ip(&["route", "replace", "default", "dev", name])?;
            self.ip(&["-6", "route", "replace", "default", "dev", name])?;
        }
        Ok(())
    }

    /// Takes it out of use, as a phone that leaves its Wi-Fi.
    pub(crate) fn down(&self) -> Result<()> {
        self.ip(&["address", "flush", "dev", &self.name])?;
        self.ip(&["link", "set", &self.name, "down"]).map(drop)
    }
}
