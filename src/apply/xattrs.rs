//! Extended attributes of open files.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// The longest list of names, and the longest value, that the kernel has, in bytes.
const MOST: usize = 64 << 10;

/// The names of a file's attributes; none where it cannot have any.
///
/// # Errors
/// When they cannot be read.
pub(super) fn names(file: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut list = vec![0; MOST];
    match rustix::fs::flistxattr(file, list.as_mut_slice()) {
        Ok(length) => {
            let list = list.get(..length).unwrap_or_default();
            Ok(list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
        }
        Err(Errno::OPNOTSUPP | Errno::NODATA) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// An attribute's value, if there is one.
///
/// # Errors
/// When it cannot be read.
pub(super) fn value(file: &OwnedFd, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = vec![0; MOST];
    match rustix::fs::fgetxattr(file, name, value.as_mut_slice()) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::OPNOTSUPP | Errno::NODATA) => Ok(None),
        Err(error) => Err(error),
    }
}
