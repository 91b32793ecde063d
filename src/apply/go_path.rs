//! Slash-separated paths as Go's `path/filepath` takes them apart and together, byte for byte.
//!
//! containerd's own applier cleans each name of a layer with it before it looks at the disk, and what a name comes to
//! has to be the same here. Purely lexical: knows no file.

/// The shortest path that means the same: no empty and no `.` elements, `..` only at the front of a relative path.
/// Nothing at all is `.`.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.first() == Some(&b'/');
    let mut kept: Vec<&[u8]> = Vec::new();
    for element in path.split(|byte| *byte == b'/') {
        match element {
            b"" | b"." => {}
            b".." => match kept.last() {
                Some(last) if *last != b".." => {
                    kept.pop();
                }
                // Above the root is the root.
                _ if rooted => {}
                _ => kept.push(element),
            },
            _ => kept.push(element),
        }
    }
    let joined = kept.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/".as_slice(), &joined].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

/// Both, one below the other, cleaned. An empty one does not count.
pub(super) fn join(above: &[u8], below: &[u8]) -> Vec<u8> {
    match (above.is_empty(), below.is_empty()) {
        (true, true) => Vec::new(),
        (true, false) => clean(below),
        (false, true) => clean(above),
        (false, false) => clean(&[above, below].join(&b'/')),
    }
}

/// What is before the last slash, with it, and what is behind.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    path.split_at(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_to_what_go_makes_of_them() {
        let cases: &[(&str, &str)] = &[
            ("", "."),
            (".", "."),
            ("./a", "a"),
            ("a/", "a"),
            ("a//b/./c", "a/b/c"),
            ("a/../b", "b"),
            ("a/../../b", "../b"),
            ("../../b/..", "../.."),
            ("/", "/"),
            ("/..", "/"),
            ("/../a/", "/a"),
            ("a/..", "."),
        ];
        for (path, cleaned) in cases {
            assert_eq!(clean(path.as_bytes()), cleaned.as_bytes(), "{path}");
        }
        assert_eq!(join(b"/", b"../x"), b"/x");
        assert_eq!(join(b"/a", b""), b"/a");
        assert_eq!(split(b"a/b"), (b"a/".as_slice(), b"b".as_slice()));
        assert_eq!(split(b"b"), (b"".as_slice(), b"b".as_slice()));
    }
}
