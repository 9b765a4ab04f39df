//! In the place of the unwinder: a panic aborts, and so nothing ever unwinds.
//!
//! Rust's standard library calls it for the backtraces of panics all the same. Here it walks no frames,
//! and the compiler leaves out all that would find their names.
#![allow(unsafe_code)]

use std::ffi::c_int;

/// `_URC_END_OF_STACK`.
const END_OF_STACK: c_int = 5;

/// Walks over all frames of the stack, which are none.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_each: *const (), _of: *mut ()) -> c_int {
    END_OF_STACK
}

macro_rules! never_called {
    ($($name:ident)*) => {
        $(
            /// Only called while something unwinds.
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> ! {
                std::process::abort()
            }
        )*
    };
}

never_called! {
    _Unwind_GetDataRelBase _Unwind_GetIP _Unwind_GetIPInfo _Unwind_GetLanguageSpecificData
    _Unwind_GetRegionStart _Unwind_GetTextRelBase _Unwind_Resume _Unwind_SetGR _Unwind_SetIP
}
