//! What stands in the way of this provider, and what its devices can do.

use std::path::Path;

use super::device;
use super::sys;
use crate::error::VerbsError;
use crate::survey::DeviceTraits;

/// What is known without opening an instance.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) libraries: Result<(), String>,
    pub(crate) kernel: Result<(), String>,
    /// Those that can be opened, by name.
    pub(crate) devices: Vec<(String, DeviceTraits)>,
}

/// Looks at the C libraries, the kernel, and the devices.
pub(crate) fn examine() -> Examined {
    let libraries = sys::library();
    let mut kernel = match sys::diagnose(Path::new("/sys"), Path::new("/dev")) {
        Some(missing) => Err(missing),
        None => Ok(()),
    };
    let mut devices = Vec::new();
    if let (Ok(library), Ok(())) = (&libraries, &kernel) {
        match device::examine(library) {
            Ok(found) => devices = found,
            Err(error) => kernel = Err(reason(error)),
        }
    }
    Examined {
        libraries: libraries.map(|_| ()).map_err(reason),
        kernel,
        devices,
    }
}

/// The words of an error, without those about the provider.
fn reason(error: VerbsError) -> String {
    match error {
        VerbsError::Unavailable { reason, .. } => reason,
        other => other.to_string(),
    }
}
