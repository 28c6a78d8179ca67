#include "server/tokenization/tokenizer.h"

#include <fstream>

#include "gmock/gmock.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/status_matchers.h"

namespace ess::tokenization {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Byte-level BPE over a few letters, with <s> put before and </s> known; U+00C3 and U+00A9 are the
// byte-level spellings of the two bytes of 'e' with an acute accent, U+0120 that of the space.
constexpr char kTokenizerJson[] = R"({
  "version": "1.0", "truncation": {"direction": "Right", "max_length": 2,
    "strategy": "LongestFirst", "stride": 0}, "padding": null,
  "added_tokens": [
    {"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
     "normalized": false, "special": true},
    {"id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
     "normalized": false, "special": true}],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                    "use_regex": true},
  "post_processor": {"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
  "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
    "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
    "vocab": {"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4, "\u0120": 5, "\u0120a": 6,
              "\u00c3": 7, "\u00a9": 8},
    "merges": ["a b", "\u0120 a"]}
})";

class TokenizerTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& config = "") {
    std::ofstream(folder_ / "tokenizer.json") << kTokenizerJson;
    if (!config.empty()) std::ofstream(folder_ / "tokenizer_config.json") << config;
    return Tokenizer::Load(folder_);
  }

  const std::filesystem::path folder_ =
      ::ess::testing::FreshFolder(::testing::TempDir(), "tokenizer_test");
};

TEST_F(TokenizerTest, EncodesWithTheTemplateAndIgnoresTruncation) {
  const auto tokenizer = Load();
  ASSERT_THAT(tokenizer, IsOk());
  EXPECT_THAT(*(*tokenizer)->Encode("ab a", true), ElementsAre(0, 4, 6));
  EXPECT_THAT(*(*tokenizer)->Encode("ab a", false), ElementsAre(4, 6));
}

TEST_F(TokenizerTest, LeavesOutTheBeginTokenWhenTheConfigSaysSo) {
  const auto tokenizer = Load(R"({"add_bos_token": false, "bos_token": "<s>"})");
  EXPECT_THAT(*(*tokenizer)->Encode("ab", true), ElementsAre(4));
}

TEST_F(TokenizerTest, AddsTheEndTokenWhenTheConfigSaysSo) {
  const auto tokenizer = Load(R"({"add_eos_token": true, "eos_token": {"content": "</s>"}})");
  EXPECT_THAT(*(*tokenizer)->Encode("ab", true), ElementsAre(0, 4, 1));
  EXPECT_THAT(*(*tokenizer)->Encode("ab", false), ElementsAre(4));
}

TEST_F(TokenizerTest, RefusesAConfigThatAddsATokenItDoesNotName) {
  EXPECT_THAT(Load(R"({"add_bos_token": true})"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("add_bos_token is true")));
}

TEST_F(TokenizerTest, TurnsSpecialTokensInTheTextIntoTheirIds) {
  const auto tokenizer = Load();
  EXPECT_THAT(*(*tokenizer)->Encode("a</s>b", false), ElementsAre(2, 1, 3));
}

TEST_F(TokenizerTest, EncodesAnEmptyTextToTheSpecialTokensAlone) {
  const auto tokenizer = Load();
  EXPECT_THAT(*(*tokenizer)->Encode("", true), ElementsAre(0));
  EXPECT_THAT(*(*tokenizer)->Encode("", false), ElementsAre());
}

TEST_F(TokenizerTest, ShowsTokensAsAReaderExpectsThem) {
  const auto tokenizer = Load();
  const std::vector<int64_t> ids = {0, 4, 6, 7, 8, 99, -1};
  EXPECT_THAT((*tokenizer)->TokenTexts(ids),
              ElementsAre("<s>", "ab", " a", "\uFFFD", "\uFFFD", "", ""));
}

TEST_F(TokenizerTest, RefusesTextThatIsNotUtf8) {
  const auto tokenizer = Load();
  EXPECT_THAT((*tokenizer)->Encode("a\xff", true),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("byte 1 is invalid")));
}

TEST_F(TokenizerTest, RefusesAFileThatIsBroken) {
  std::ofstream(folder_ / "tokenizer.json") << "{\"model\": 1}";
  EXPECT_THAT(Tokenizer::Load(folder_),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("tokenizer.json: ")));
}

TEST_F(TokenizerTest, SaysWhichFileIsMissing) {
  EXPECT_THAT(Tokenizer::Load(folder_),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("tokenizer.json: cannot be read")));
}

}  // namespace
}  // namespace ess::tokenization
