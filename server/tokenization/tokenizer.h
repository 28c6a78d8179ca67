// Text -> token ids, by the Hugging Face `tokenizers` crate.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace ess::tokenization {

// Immutable, thread-safe.
class Tokenizer {
 public:
  // Reads tokenizer.json and, when present, tokenizer_config.json, whose add_bos_token and
  // add_eos_token win over the template. Padding and truncation of the file are ignored.
  // Errors: kDataLoss  a file that cannot be read or that the crate refuses.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::filesystem::path& folder);

  ~Tokenizer();

  // Errors: kInvalidArgument  text that is not UTF-8.
  absl::StatusOr<std::vector<int64_t>> Encode(std::string_view text, bool add_special_tokens) const;

  // The text of each token alone, for display: a token that holds part of a character shows
  // U+FFFD; special tokens show their name; an id the vocabulary lacks shows "".
  std::vector<std::string> TokenTexts(std::span<const int64_t> ids) const;

 private:
  struct Handle;
  explicit Tokenizer(std::unique_ptr<Handle> handle);
  std::unique_ptr<Handle> handle_;
};

}  // namespace ess::tokenization
