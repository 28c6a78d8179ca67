//! C interface to the Hugging Face `tokenizers` crate, for server/tokenization/tokenizer.cc.
//!
//! Every function catches panics, and nothing is printed: what a panic says may quote the prompt.
//! Buffers that come out are owned by the caller, who gives them back with the matching
//! `_free` function.

use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::slice;
use std::str;
use std::sync::Once;
use tokenizers::{ModelWrapper, Tokenizer};

/// UTF-8 text or an error message; `data` is null when there is none.
#[repr(C)]
pub struct EssText {
    data: *mut u8,
    size: usize,
}

#[repr(C)]
pub struct EssIds {
    data: *mut u32,
    size: usize,
}

impl EssText {
    fn none() -> Self {
        EssText { data: std::ptr::null_mut(), size: 0 }
    }

    fn new(text: String) -> Self {
        let bytes = text.into_bytes().into_boxed_slice();
        let size = bytes.len();
        EssText { data: Box::into_raw(bytes) as *mut u8, size }
    }
}

unsafe fn text_of<'a>(data: *const u8, size: usize) -> Result<&'a str, String> {
    let bytes = if size == 0 { &[][..] } else { slice::from_raw_parts(data, size) };
    str::from_utf8(bytes).map_err(|e| format!("not UTF-8: byte {} is invalid", e.valid_up_to()))
}

/// Runs `work`; a panic becomes an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("the tokenizer panicked".to_string()))
}

/// Merges are always all applied: the file's dropout is for training.
fn without_dropout(tokenizer: &mut Tokenizer) {
    if let ModelWrapper::BPE(model) = tokenizer.get_model() {
        if model.dropout.is_some() {
            let mut model = model.clone();
            model.dropout = None;
            tokenizer.with_model(model);
        }
    }
}

/// Reads the text of a tokenizer.json. Null and `error` on failure.
///
/// # Safety
/// `json` points to `size` bytes; `error` is writable.
#[no_mangle]
pub unsafe extern "C" fn ess_tokenizer_load(
    json: *const u8,
    size: usize,
    error: *mut EssText,
) -> *mut Tokenizer {
    static SILENCE_PANICS: Once = Once::new();
    SILENCE_PANICS.call_once(|| set_hook(Box::new(|_| {})));

    *error = EssText::none();
    let loaded = guarded(|| {
        let mut tokenizer: Tokenizer = text_of(json, size)?.parse().map_err(|e| format!("{e}"))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| format!("{e}"))?;
        without_dropout(&mut tokenizer);
        Ok(tokenizer)
    });
    match loaded {
        Ok(tokenizer) => Box::into_raw(Box::new(tokenizer)),
        Err(message) => {
            *error = EssText::new(message);
            std::ptr::null_mut()
        }
    }
}

/// # Safety
/// `tokenizer` comes from `ess_tokenizer_load` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn ess_tokenizer_free(tokenizer: *mut Tokenizer) {
    drop(Box::from_raw(tokenizer));
}

/// The token ids of a text; null data and `error` on failure.
///
/// # Safety
/// `tokenizer` is alive, `text` points to `size` bytes, `error` is writable.
#[no_mangle]
pub unsafe extern "C" fn ess_tokenizer_encode(
    tokenizer: *const Tokenizer,
    text: *const u8,
    size: usize,
    add_special_tokens: bool,
    error: *mut EssText,
) -> EssIds {
    *error = EssText::none();
    let encoded = guarded(|| {
        let encoding = (*tokenizer)
            .encode_fast(text_of(text, size)?, add_special_tokens)
            // The library's own message may quote the text.
            .map_err(|_| "the tokenizer cannot encode this text".to_string())?;
        Ok(encoding.get_ids().to_vec())
    });
    match encoded {
        Ok(ids) => {
            let ids = ids.into_boxed_slice();
            let size = ids.len();
            EssIds { data: Box::into_raw(ids) as *mut u32, size }
        }
        Err(message) => {
            *error = EssText::new(message);
            EssIds { data: std::ptr::null_mut(), size: 0 }
        }
    }
}

/// The id of a token by its content, or -1.
///
/// # Safety
/// `tokenizer` is alive, `token` points to `size` bytes.
#[no_mangle]
pub unsafe extern "C" fn ess_tokenizer_token_to_id(
    tokenizer: *const Tokenizer,
    token: *const u8,
    size: usize,
) -> i64 {
    let id = guarded(|| Ok((*tokenizer).token_to_id(text_of(token, size)?)));
    id.ok().flatten().map_or(-1, i64::from)
}

/// The text of one token for display; empty for an id the vocabulary lacks.
///
/// # Safety
/// `tokenizer` is alive.
#[no_mangle]
pub unsafe extern "C" fn ess_tokenizer_token_text(tokenizer: *const Tokenizer, id: u32) -> EssText {
    let text = guarded(|| {
        let Some(token) = (*tokenizer).id_to_token(id) else {
            return Ok(String::new());
        };
        let added = (*tokenizer).get_added_vocabulary().get_added_tokens_decoder();
        if added.get(&id).is_some_and(|added| added.special) {
            return Ok(token);
        }
        // SentencePiece's space mark; decoding a token alone would drop a leading one.
        if token.contains('\u{2581}') {
            return Ok(token.replace('\u{2581}', " "));
        }
        let decoded = (*tokenizer).decode(&[id], false).map_err(|e| format!("{e}"))?;
        Ok(if decoded.is_empty() { token } else { decoded })
    });
    EssText::new(text.unwrap_or_default())
}

/// # Safety
/// `text` comes from this library and is not used again.
#[no_mangle]
pub unsafe extern "C" fn ess_text_free(text: EssText) {
    if !text.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(text.data, text.size)));
    }
}

/// # Safety
/// `ids` comes from this library and is not used again.
#[no_mangle]
pub unsafe extern "C" fn ess_ids_free(ids: EssIds) {
    if !ids.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(ids.data, ids.size)));
    }
}
