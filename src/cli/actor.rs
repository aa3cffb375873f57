//! Who sits at the command line.

use crate::persist::Act;
use tacho_core::domain::time::Timestamp;

/// By the user of the process; the name is the one that the environment tells, the number is the kernel's.
pub(super) fn act(reason: Option<&str>, now: Timestamp) -> Act<'_> {
    let name = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    let uid = rustix::process::getuid().as_raw();
    Act { actor: format!("command line: {name} (uid {uid})"), reason, at: now }
}
