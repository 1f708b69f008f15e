//! What an instance may be told.

/// Environment variable that names the device.
const DEVICE: &str = "SDP_RDMA_DEVICE";

/// How to open an instance.
#[derive(Clone, Debug, Default)]
pub struct RdmaOptions {
    /// Name of the device, as `ibv_devices` lists it. Without one: what `SDP_RDMA_DEVICE` says,
    /// else the first that has an active port. Connections that are bound to no address leave by a
    /// device that was named, from its address nearest to the peer's; otherwise the system's route
    /// decides, and must lead through the device.
    pub device: Option<String>,
    /// Do without memory windows, as on a device that has none: keys are then regions.
    pub without_windows: bool,
}

impl RdmaOptions {
    /// The device asked for.
    pub(super) fn wanted(&self) -> Option<String> {
        let named = |name: &String| !name.is_empty();
        self.device
            .clone()
            .or_else(|| std::env::var(DEVICE).ok())
            .filter(named)
    }
}
