//! What the system says about a process: its processor time and its memory.

use std::{fs, time::Duration};

use anyhow::Context as _;

/// A process that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watched(pub(super) u32);

impl Watched {
    /// The processor time used so far, with all threads, in steps of 10 ms.
    pub(super) fn cpu(self) -> anyhow::Result<Duration> {
        cpu_of(&self.0.to_string())
    }

    /// The resident memory, in mebibytes: now, and at its peak.
    pub(super) fn memory(self) -> anyhow::Result<(f64, f64)> {
        let path = format!("/proc/{}/status", self.0);
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        mebibytes(&status, "VmRSS:")
            .zip(mebibytes(&status, "VmHWM:"))
            .with_context(|| format!("reading the memory in {path}"))
    }
}

/// The processor time that this process has used.
pub(super) fn own_cpu() -> anyhow::Result<Duration> {
    cpu_of("self")
}

fn cpu_of(process: &str) -> anyhow::Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    ticks_of(&stat)
        .map(|ticks| Duration::from_millis(10 * ticks))
        .with_context(|| format!("reading the processor time in {path}"))
}

/// User and system time in hundredths of a second (`proc_pid_stat(5)`, fields 14 and 15).
fn ticks_of(stat: &str) -> Option<u64> {
    // The second field is the program's name, which may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// A line such as `VmRSS:   1024 kB` (`proc_pid_status(5)`).
fn mebibytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u32 = line.split_whitespace().next()?.parse().ok()?;
    Some(f64::from(kibibytes) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_user_and_system_time() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 120 30 1 1 20 0";
        assert_eq!(ticks_of(stat), Some(150));
        assert_eq!(ticks_of("7 (a) S 1"), None);
        assert!(own_cpu().is_ok());
    }

    #[test]
    fn memory_is_read_by_its_name() {
        let status = "Name:\tx\nVmHWM:\t    3072 kB\nVmRSS:\t    1536 kB\n";
        assert_eq!(mebibytes(status, "VmRSS:"), Some(1.5));
        assert_eq!(mebibytes(status, "VmHWM:"), Some(3.0));
        assert_eq!(mebibytes(status, "VmSwap:"), None);
        let (now, peak) = Watched(std::process::id()).memory().unwrap();
        assert!(0.0 < now && now <= peak);
    }
}
