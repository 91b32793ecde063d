//! A disk that can end at any step.

use std::io;

use crate::store::disk::Step;

pub(in crate::store) struct Trial;

impl Trial {
    pub(in crate::store) fn take<T, E: From<io::Error>>(
        &self,
        _step: Step<'_>,
        act: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        act()
    }
}
