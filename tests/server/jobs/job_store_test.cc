#include "server/jobs/job_store.h"

#include <sqlite3.h>

#include <string>

#include "gmock/gmock.h"
#include "tests/server/jobs/temporary_folder.h"
#include "tests/support/status_matchers.h"

namespace ess::jobs {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::ReadAll;
using ::ess::testing::StatusIs;
using ::ess::testing::WriteAll;
using ::testing::_;
using ::testing::HasSubstr;

Job MakeJob(const std::string& id, const std::string& owner = "", const std::string& key = "") {
  return {.id = id,
          .owner = owner,
          .idempotency_key = key,
          .content_digest = "digest",
          .specification = std::string("\0\1binary", 8),
          .model = "m",
          .prompts_total = 3,
          .submitted_at = 12.5};
}

class JobStoreTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<JobStore>> Open() { return JobStore::Open(folder.path()); }
  std::filesystem::path file() const { return folder.path() / JobStore::kFileName; }
  // Runs a statement on the file, past the store.
  void Execute(const std::string& sql) {
    sqlite3* handle = nullptr;
    ASSERT_EQ(sqlite3_open(file().c_str(), &handle), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(handle, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(handle);
  }

  ::ess::testing::TemporaryFolder folder;
};

TEST_F(JobStoreTest, KeepsEveryFieldAcrossProcesses) {
  Job job = MakeJob("a", "alice", "key");
  {
    auto store = Open();
    ASSERT_THAT(store, IsOk());
    ASSERT_THAT((*store)->Insert(job), IsOk());
    job.state = JobState::kFailed;
    job.error = absl::DataLossError("why");
    job.cells_total = 9;
    job.cells_done = 6;
    job.started_at = 13;
    job.finished_at = 14;
    job.run_seconds = 0.25;
    job.restarts = 2;
    ASSERT_THAT((*store)->Update(job), IsOk());
  }

  auto store = Open();
  ASSERT_THAT(store, IsOk());
  const absl::StatusOr<Job> found = (*store)->Get("a");

  ASSERT_THAT(found, IsOk());
  EXPECT_EQ(found->sequence, 1);
  EXPECT_EQ(found->owner, "alice");
  EXPECT_EQ(found->idempotency_key, "key");
  EXPECT_EQ(found->specification, job.specification);
  EXPECT_EQ(found->state, JobState::kFailed);
  EXPECT_EQ(found->error, job.error);
  EXPECT_EQ(found->cells_done, 6);
  EXPECT_EQ(found->finished_at, 14);
  EXPECT_EQ(found->run_seconds, 0.25);
  EXPECT_EQ(found->restarts, 2);
}

TEST_F(JobStoreTest, AKeyIsUniqueForItsOwnerOnly) {
  auto store = Open();
  ASSERT_THAT(store, IsOk());
  Job first = MakeJob("a", "alice", "k"), same = MakeJob("b", "alice", "k"),
      other = MakeJob("c", "bob", "k"), none = MakeJob("d"), none2 = MakeJob("e");

  EXPECT_THAT((*store)->Insert(first), IsOk());
  EXPECT_THAT((*store)->Insert(same), StatusIs(absl::StatusCode::kAlreadyExists, _));
  EXPECT_THAT((*store)->Insert(other), IsOk());
  EXPECT_THAT((*store)->Insert(none), IsOk());
  EXPECT_THAT((*store)->Insert(none2), IsOk());

  EXPECT_EQ((*store)->FindByKey("alice", "k")->value().id, "a");
  EXPECT_FALSE((*store)->FindByKey("carol", "k")->has_value());
}

TEST_F(JobStoreTest, ListsNewestFirstByOwnerAndState) {
  auto store = Open();
  ASSERT_THAT(store, IsOk());
  for (const char* id : {"a", "b", "c", "d"}) {
    Job job = MakeJob(id, id == std::string("b") ? "bob" : "alice");
    ASSERT_THAT((*store)->Insert(job), IsOk());
  }
  Job ended = *(*store)->Get("c");
  ended.state = JobState::kSucceeded;
  ASSERT_THAT((*store)->Update(ended), IsOk());
  const auto ids = [&](const JobFilter& filter, int64_t limit = 10) {
    const absl::StatusOr<std::vector<Job>> jobs = (*store)->List(filter, limit);
    std::string found;
    for (const Job& job : *jobs) found += job.id;
    return found;
  };

  EXPECT_EQ(ids({}), "dcba");
  EXPECT_EQ(ids({}, 2), "dc");
  EXPECT_EQ(ids({.before = 3}), "ba");
  EXPECT_EQ(ids({.owner = "alice"}), "dca");
  EXPECT_EQ(ids({.owner = "alice", .state = JobState::kSucceeded}), "c");
  EXPECT_EQ((*store)->Unfinished()->size(), 3);
  EXPECT_EQ((*store)->CountByState()->at(JobState::kQueued), 3);
}

TEST_F(JobStoreTest, AnEndedJobChangesNoMore) {
  auto store = Open();
  ASSERT_THAT(store, IsOk());
  Job job = MakeJob("a");
  ASSERT_THAT((*store)->Insert(job), IsOk());
  ASSERT_THAT((*store)->AddLayer(job, {.group = 0, .layer = 1, .notes = "n"}), IsOk());
  job.state = JobState::kCancelled;
  ASSERT_THAT((*store)->Update(job), IsOk());

  EXPECT_THAT((*store)->Update(job), StatusIs(absl::StatusCode::kFailedPrecondition, _));
  EXPECT_THAT((*store)->AddLayer(job, {.group = 1, .layer = 0, .notes = ""}),
              StatusIs(absl::StatusCode::kFailedPrecondition, _));
  EXPECT_THAT((*store)->Update(MakeJob("z")), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_TRUE(*(*store)->Delete("a"));
  EXPECT_FALSE(*(*store)->Delete("a"));
}

TEST_F(JobStoreTest, LayersAreReadByGroup) {
  auto store = Open();
  ASSERT_THAT(store, IsOk());
  Job job = MakeJob("a");
  ASSERT_THAT((*store)->Insert(job), IsOk());
  for (const auto& [group, layer] : {std::pair(1, 0), std::pair(0, 1), std::pair(0, 0)}) {
    ASSERT_THAT((*store)->AddLayer(job, {.group = group, .layer = layer, .notes = "x"}), IsOk());
  }
  std::string order;

  ASSERT_THAT((*store)->ForEachLayer(job.sequence,
                                     [&](const FinishedLayer& layer) {
                                       order +=
                                           std::to_string(layer.group * 10 + layer.layer) + " ";
                                     }),
              IsOk());

  EXPECT_EQ(order, "0 1 10 ");
}

TEST_F(JobStoreTest, AgeCountsForEndedJobsOnly) {
  auto store = Open();
  ASSERT_THAT(store, IsOk());
  Job queued = MakeJob("q"), ended = MakeJob("e");
  ASSERT_THAT((*store)->Insert(queued), IsOk());
  ASSERT_THAT((*store)->Insert(ended), IsOk());
  ended.state = JobState::kSucceeded;
  ASSERT_THAT((*store)->Update(ended), IsOk());

  EXPECT_THAT(*(*store)->Age(60, 100), ::testing::IsEmpty());
  EXPECT_THAT(*(*store)->Age(60, 100), ::testing::ElementsAre("e"));
}

TEST_F(JobStoreTest, ADamagedFileIsRefusedAndLeftAsItIs) {
  {
    auto store = Open();
    ASSERT_THAT(store, IsOk());
    for (int i = 0; i < 200; ++i) {
      Job job = MakeJob("job" + std::to_string(i));
      ASSERT_THAT((*store)->Insert(job), IsOk());
    }
  }
  std::string bytes = ReadAll(file());
  for (size_t i = 4096; i < std::min<size_t>(bytes.size(), 20000); ++i) bytes[i] = '\x5a';
  WriteAll(file(), bytes);

  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(".recover")));
  EXPECT_EQ(ReadAll(file()), bytes);
}

TEST_F(JobStoreTest, AFileThatIsNoDatabaseIsRefusedAndLeftAsItIs) {
  const std::string text(8192, 'x');
  WriteAll(file(), text);

  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("Nothing was changed")));
  EXPECT_EQ(ReadAll(file()), text);
}

TEST_F(JobStoreTest, ADatabaseOfAnotherProgramIsRefused) {
  Execute("CREATE TABLE t (a)");

  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("another program")));
}

TEST_F(JobStoreTest, ANewerSchemaIsRefusedAndNamed) {
  { ASSERT_THAT(Open(), IsOk()); }
  Execute("PRAGMA user_version = 7");

  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("schema 7")));
}

TEST_F(JobStoreTest, ALockedDatabaseIsRefusedAndALockLaterIsAStatus) {
  auto store = Open();
  ASSERT_THAT(store, IsOk());
  Job job = MakeJob("a");
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(file().c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);

  EXPECT_THAT((*store)->Insert(job), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("locked")));
  sqlite3_exec(other, "COMMIT", nullptr, nullptr, nullptr);
  EXPECT_THAT((*store)->Insert(job), IsOk());

  store->reset();
  ASSERT_EQ(sqlite3_exec(other, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE", nullptr,
                         nullptr, nullptr),
            SQLITE_OK);
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("Nothing was changed")));
  sqlite3_close(other);
}

}  // namespace
}  // namespace ess::jobs
