//! Lists of pods, page by page.

use super::api::RequestError;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, ObjectList};

/// How many pods are listed with one request, unless they are very large.
const PAGE: u32 = 500;

/// The pages of one list. Anybody who may create pods decides how large a page is. A page that is too large is asked for
/// again, as smaller ones.
pub(super) struct Pages {
    params: ListParams,
    size: u32,
    has_more: bool,
}

impl Pages {
    /// The pods that a label selector selects.
    pub(super) fn of(selector: &str) -> Self {
        Pages { params: ListParams::default().labels(selector), size: PAGE, has_more: true }
    }

    /// The next request to send, until the list is complete.
    pub(super) fn request(&self) -> Option<ListParams> {
        self.has_more.then(|| self.params.clone().limit(self.size))
    }

    /// Takes the answer to that request. Returns `None` for a page that is too large.
    pub(super) fn accept(
        &mut self,
        answer: Result<ObjectList<Pod>, RequestError>,
    ) -> Result<Option<ObjectList<Pod>>, RequestError> {
        match answer {
            Ok(page) => {
                self.params.continue_token = page.metadata.continue_.clone().filter(|token| !token.is_empty());
                self.has_more = self.params.continue_token.is_some();
                Ok(Some(page))
            }
            Err(error) if error.is_too_large() && self.size > 1 => {
                self.size = (self.size / 8).max(1);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
