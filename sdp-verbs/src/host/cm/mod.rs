//! Connection management of the host provider.

use std::sync::Arc;

use super::plane::Plane;
use crate::cm::{CmId, EventChannel};
use crate::error::VerbsError;

/// Connection management of one provider instance.
#[derive(Debug)]
pub(crate) struct Cm {}

impl Cm {
    /// For one instance.
    pub(crate) fn new(plane: Arc<Plane>) -> Result<Arc<Self>, VerbsError> {
        let _ = plane;
        Ok(Arc::new(Self {}))
    }

    /// See [`Provider::create_event_channel`](crate::Provider::create_event_channel).
    pub(crate) fn create_event_channel(
        self: &Arc<Self>,
    ) -> Result<Arc<dyn EventChannel>, VerbsError> {
        unimplemented!()
    }

    /// See [`Provider::create_id`](crate::Provider::create_id).
    pub(crate) fn create_id(
        self: &Arc<Self>,
        channel: &Arc<dyn EventChannel>,
    ) -> Result<Arc<dyn CmId>, VerbsError> {
        let _ = channel;
        unimplemented!()
    }
}
