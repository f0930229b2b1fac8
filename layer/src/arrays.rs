//! Arrays as Vulkan passes them: a count and a pointer.

/// A slice of the application's; empty where the pointer is null.
///
/// # Safety
/// `pointer` is an array of `count` elements, or null, or `count` is 0.
pub unsafe fn slice<'a, T>(pointer: *const T, count: u32) -> &'a [T] {
    if count == 0 || pointer.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(pointer, count as usize) }
}

/// As [`slice`], to write to.
///
/// # Safety
/// As for [`slice`]; and nobody else uses the array meanwhile.
pub unsafe fn slice_mut<'a, T>(pointer: *mut T, count: u32) -> &'a mut [T] {
    if count == 0 || pointer.is_null() {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts_mut(pointer, count as usize) }
}

/// Writes an array in the way of Vulkan's two-call queries (`count` in and out, `out` null to ask for the number).
///
/// # Safety
/// `count` is valid, and `out` null or an array of `*count` elements.
pub unsafe fn write_array<T: Copy, S>(values: &[T], count: *mut u32, out: *mut S, write: impl Fn(&mut S, T)) {
    let wanted = u32::try_from(values.len()).unwrap_or(u32::MAX);
    // SAFETY: the caller's promise.
    unsafe {
        if out.is_null() {
            *count = wanted;
            return;
        }
        *count = wanted.min(*count);
        for (n, &value) in values.iter().take(*count as usize).enumerate() {
            write(&mut *out.add(n), value);
        }
    }
}
