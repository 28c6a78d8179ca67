#include "server/jobs/prompt_spool.h"

#include <string>

#include "gmock/gmock.h"
#include "tests/server/jobs/temporary_folder.h"
#include "tests/support/status_matchers.h"

namespace ess::jobs {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::HasSubstr;

class PromptSpoolTest : public ::testing::Test {
 protected:
  absl::Status Spool(const std::string& text, size_t piece = std::string::npos) {
    absl::StatusOr<PromptSpool> spool = PromptSpool::Create(path(), limits);
    if (!spool.ok()) return spool.status();
    for (size_t at = 0; at < text.size(); at += std::min(piece, text.size() - at)) {
      if (absl::Status status = spool->Add(std::string_view(text).substr(at, piece)); !status.ok())
        return status;
    }
    absl::Status status = spool->Finish();
    if (status.ok()) digest = spool->digest();
    return status;
  }
  std::filesystem::path path() const { return folder.path() / "prompts.jsonl"; }

  ::ess::testing::TemporaryFolder folder;
  PromptLimits limits;
  std::string digest;
};

TEST_F(PromptSpoolTest, WhatWasSpooledIsReadInOrder) {
  ASSERT_THAT(Spool("{\"text\": \"a\"}\r\n\n{\"id\": \"x\", \"token_ids\": [1, 2]}"), IsOk());

  absl::StatusOr<PromptReader> reader = PromptReader::Open(path());
  ASSERT_THAT(reader, IsOk());
  const auto prompts = reader->Next(10, 1 << 20);

  ASSERT_THAT(prompts, IsOk());
  ASSERT_EQ(prompts->size(), 2);
  EXPECT_EQ(prompts->at(0).id, "0");
  EXPECT_EQ(std::get<std::string>(prompts->at(0).content), "a");
  EXPECT_EQ(prompts->at(1).id, "x");
  EXPECT_THAT(std::get<std::vector<int64_t>>(prompts->at(1).content), ::testing::ElementsAre(1, 2));
  EXPECT_TRUE(reader->Next(10, 1 << 20)->empty());
}

TEST_F(PromptSpoolTest, ReadsAtMostTheCountOrTheBytesThatAreAskedFor) {
  ASSERT_THAT(Spool("{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"text\": \"c\"}\n"), IsOk());
  absl::StatusOr<PromptReader> reader = PromptReader::Open(path());
  ASSERT_THAT(reader, IsOk());

  EXPECT_EQ(reader->Next(2, 1 << 20)->size(), 2);
  EXPECT_EQ(reader->Next(2, 1)->size(), 1);
  EXPECT_EQ(reader->Next(2, 1)->size(), 0);
}

TEST_F(PromptSpoolTest, TheDigestIsOfTheContentsAndNotOfTheirSpelling) {
  ASSERT_THAT(Spool("{\"text\": \"ab\"}\n{\"token_ids\": [1]}"), IsOk());
  const std::string first = digest;

  for (const size_t piece : {1, 2, 7}) {
    ASSERT_THAT(Spool("\n{ \"text\" :\"\\u0061b\",\"id\":\"0\"}\n{\"token_ids\":[1]}\n", piece),
                IsOk());
    EXPECT_EQ(digest, first);
  }
  for (const char* other : {"{\"text\": \"ab\"}\n{\"token_ids\": [2]}", "{\"text\": \"ab\"}",
                            "{\"text\": \"ab\", \"id\": \"z\"}\n{\"token_ids\": [1]}",
                            "{\"text\": \"ab\"}\n{\"text\": \"1\"}"}) {
    ASSERT_THAT(Spool(other), IsOk());
    EXPECT_NE(digest, first) << other;
  }
}

TEST_F(PromptSpoolTest, LimitsAreNamed) {
  limits = {.max_prompts = 2, .max_bytes = 64};

  EXPECT_THAT(Spool("{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"text\": \"c\"}"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("max_job_prompts")));
  EXPECT_THAT(Spool("{\"text\": \"" + std::string(60, 'a') + "\"}"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("max_job_prompt_bytes")));
  EXPECT_THAT(Spool(std::string(kMaxLineBytes + 1, ' '), 1000),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("line 1 has more than")));
  limits = {};
  EXPECT_THAT(Spool("{\"text\": \"a\", \"id\": \"" + std::string(257, 'i') + "\"}"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("257")));
}

TEST_F(PromptSpoolTest, MessagesNameTheLineAndNeverTheText) {
  for (const char* bad :
       {"{\"text\": \"secret\", \"text\": \"secret\"}", "{\"text\": secret}", "{\"text\": \"secret",
        "[\"secret\"]", "\"secret\"", "{\"text\": \"secret\", \"token_ids\": [1]}",
        "{\"token_ids\": [\"secret\"]}"}) {
    const absl::Status status = Spool(std::string("{\"text\": \"a\"}\n") + bad);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("line 2: ")));
    EXPECT_THAT(std::string(status.message()), ::testing::Not(HasSubstr("secret")));
  }
}

TEST_F(PromptSpoolTest, AnIdTwiceIsRefusedWithTheLine) {
  EXPECT_THAT(Spool("{\"text\": \"a\", \"id\": \"1\"}\n{\"text\": \"b\"}"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("line 2: '1' is the id")));
}

}  // namespace
}  // namespace ess::jobs
