//! Whatever a client sends as filters: they are refused or they can be asked, in bounded time.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<String>, String)| {
    let (filters, value) = input;
    tidehold::serve::content::fuzz_filters(&filters, &value);
});
