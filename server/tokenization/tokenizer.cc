#include "server/tokenization/tokenizer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "fmt/format.h"
#include "server/base/json_file.h"
#include "server/base/status_macros.h"

// The interface of rust/src/lib.rs.
extern "C" {
struct RustTokenizer;
struct EssText {
  char* data;
  size_t size;
};
struct EssIds {
  uint32_t* data;
  size_t size;
};
RustTokenizer* ess_tokenizer_load(const char* json, size_t size, EssText* error);
void ess_tokenizer_free(RustTokenizer* tokenizer);
EssIds ess_tokenizer_encode(const RustTokenizer* tokenizer, const char* text, size_t size,
                            bool add_special_tokens, EssText* error);
int64_t ess_tokenizer_token_to_id(const RustTokenizer* tokenizer, const char* token, size_t size);
EssText ess_tokenizer_token_text(const RustTokenizer* tokenizer, uint32_t id);
void ess_text_free(EssText text);
void ess_ids_free(EssIds ids);
}

namespace ess::tokenization {
namespace {

constexpr char kTokenizerFile[] = "tokenizer.json";
constexpr char kConfigFile[] = "tokenizer_config.json";
constexpr size_t kMaxFileBytes = 256 << 20;

std::string TakeText(EssText text) {
  std::string taken(text.data == nullptr ? "" : std::string(text.data, text.size));
  ess_text_free(text);
  return taken;
}

// A special token in tokenizer_config.json: "<s>" or {"content": "<s>", ...}.
std::optional<std::string> SpecialToken(const nlohmann::json& config, const char* key) {
  if (!config.contains(key)) return std::nullopt;
  const nlohmann::json& token = config[key];
  if (token.is_string()) return token.get<std::string>();
  if (token.is_object() && token.contains("content") && token["content"].is_string()) {
    return token["content"].get<std::string>();
  }
  return std::nullopt;
}

}  // namespace

// With an override, a text's ids are prefix + its own + suffix; without, the file's template holds.
struct Tokenizer::Handle {
  ~Handle() {
    if (tokenizer != nullptr) ess_tokenizer_free(tokenizer);
  }

  absl::StatusOr<std::vector<int64_t>> Encode(std::string_view text, bool special) const {
    EssText error{};
    const EssIds ids = ess_tokenizer_encode(tokenizer, text.data(), text.size(), special, &error);
    if (ids.data == nullptr) return absl::InvalidArgumentError(TakeText(error));
    std::vector<int64_t> taken(ids.data, ids.data + ids.size);
    ess_ids_free(ids);
    return taken;
  }

  // Follows add_bos_token and add_eos_token where the config has them.
  absl::Status ReadOverride(const nlohmann::json& config);

  RustTokenizer* tokenizer = nullptr;
  bool has_override = false;
  std::vector<int64_t> prefix;
  std::vector<int64_t> suffix;
};

absl::Status Tokenizer::Handle::ReadOverride(const nlohmann::json& config) {
  // What the template puts around a text shows on any text that has tokens.
  ESS_ASSIGN_OR_RETURN(const std::vector<int64_t> bare, Encode("a", false));
  ESS_ASSIGN_OR_RETURN(const std::vector<int64_t> full, Encode("a", true));
  const auto found = std::search(full.begin(), full.end(), bare.begin(), bare.end());
  prefix.assign(full.begin(), found);
  if (found != full.end()) suffix.assign(found + static_cast<int64_t>(bare.size()), full.end());

  auto follow = [&](const char* flag, const char* token_key, std::vector<int64_t>& side) {
    if (!config.contains(flag) || !config[flag].is_boolean()) return absl::OkStatus();
    has_override = true;
    side.clear();
    if (!config[flag].get<bool>()) return absl::OkStatus();
    const std::optional<std::string> token = SpecialToken(config, token_key);
    const int64_t id =
        token ? ess_tokenizer_token_to_id(tokenizer, token->data(), token->size()) : -1;
    if (id < 0) {
      return absl::DataLossError(fmt::format(
          "{}: {} is true and {} is not a token of the vocabulary", kConfigFile, flag, token_key));
    }
    side.push_back(id);
    return absl::OkStatus();
  };
  ESS_RETURN_IF_ERROR(follow("add_bos_token", "bos_token", prefix));
  return follow("add_eos_token", "eos_token", suffix);
}

Tokenizer::Tokenizer(std::unique_ptr<Handle> handle) : handle_(std::move(handle)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& folder) {
  ESS_ASSIGN_OR_RETURN(const std::string json,
                       ReadTextFile(folder / kTokenizerFile, kTokenizerFile, kMaxFileBytes));
  auto handle = std::make_unique<Handle>();
  EssText error{};
  handle->tokenizer = ess_tokenizer_load(json.data(), json.size(), &error);
  if (handle->tokenizer == nullptr) {
    return absl::DataLossError(fmt::format("{}: {}", kTokenizerFile, TakeText(error)));
  }
  std::error_code missing;
  if (std::filesystem::exists(folder / kConfigFile, missing)) {
    ESS_ASSIGN_OR_RETURN(const nlohmann::json config,
                         ReadJsonFile(folder / kConfigFile, kConfigFile, kMaxFileBytes));
    ESS_RETURN_IF_ERROR(handle->ReadOverride(config));
  }
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(handle)));
}

absl::StatusOr<std::vector<int64_t>> Tokenizer::Encode(std::string_view text,
                                                       bool add_special_tokens) const {
  if (!add_special_tokens || !handle_->has_override) {
    return handle_->Encode(text, add_special_tokens);
  }
  ESS_ASSIGN_OR_RETURN(const std::vector<int64_t> bare, handle_->Encode(text, false));
  std::vector<int64_t> ids = handle_->prefix;
  ids.insert(ids.end(), bare.begin(), bare.end());
  ids.insert(ids.end(), handle_->suffix.begin(), handle_->suffix.end());
  return ids;
}

std::vector<std::string> Tokenizer::TokenTexts(std::span<const int64_t> ids) const {
  std::vector<std::string> texts;
  texts.reserve(ids.size());
  for (const int64_t id : ids) {
    texts.push_back(
        id < 0 || id > UINT32_MAX
            ? std::string()
            : TakeText(ess_tokenizer_token_text(handle_->tokenizer, static_cast<uint32_t>(id))));
  }
  return texts;
}

}  // namespace ess::tokenization
