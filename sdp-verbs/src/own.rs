//! Objects of a provider behind the handles that its callers hold.

use std::any::Any;
use std::sync::Arc;

use crate::error::VerbsError;

/// The object behind a handle, which has to be of this provider instance: of its type, and such
/// that `belongs` agrees. `what` names it in the error.
///
/// # Errors
/// [`VerbsError::Argument`] for an object of another provider or instance.
pub(crate) fn own<T: Any + Send + Sync>(
    object: Arc<dyn Any + Send + Sync>,
    what: &'static str,
    belongs: impl FnOnce(&T) -> bool,
) -> Result<Arc<T>, VerbsError> {
    object
        .downcast::<T>()
        .ok()
        .filter(|object| belongs(object))
        .ok_or_else(|| VerbsError::Argument {
            what,
            reason: "it is not of this provider instance".to_owned(),
        })
}
