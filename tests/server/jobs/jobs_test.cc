#include "server/jobs/jobs.h"

#include <memory>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/server/jobs/temporary_folder.h"
#include "tests/support/status_matchers.h"

namespace ess::jobs {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::ess::testing::WriteAll;
using ::testing::_;
using ::testing::HasSubstr;

class JobsTest : public ::testing::Test {
 protected:
  void SetUp() override { Reopen(); }
  void Reopen() {
    jobs.reset();
    auto opened = Jobs::Open(folder.path(), limits, metrics);
    ASSERT_THAT(opened, IsOk());
    jobs = *std::move(opened);
  }
  absl::StatusOr<Job> Submit(const std::string& owner, const std::string& key = "",
                             const std::string& text = "a") {
    auto submission = jobs->Begin({.owner = owner, .idempotency_key = key, .model = "m"});
    if (!submission.ok()) return submission.status();
    if (absl::Status added = (*submission)->Add("{\"text\": \"" + text + "\"}"); !added.ok()) {
      return added;
    }
    return (*submission)->Commit();
  }
  // As a runner does it.
  Job Succeed(Job job, int64_t bytes = 100) {
    EXPECT_THAT(jobs->Succeed(job, {.bytes = bytes, .sha256 = "s"}), IsOk());
    WriteAll(jobs->FilesOf(job.id).result(), std::string(static_cast<size_t>(bytes), 'r'));
    return *jobs->Get(job.id, admin);
  }
  bool HasFolder(const Job& job) { return std::filesystem::exists(jobs->FilesOf(job.id).folder); }

  ::ess::testing::TemporaryFolder folder;
  telemetry::Metrics metrics;
  JobLimits limits;
  const Viewer admin{.admin = true};
  std::unique_ptr<Jobs> jobs;
};

TEST_F(JobsTest, AJobBelongsToItsOwnerAndToAdmins) {
  const absl::StatusOr<Job> job = Submit("alice");
  ASSERT_THAT(job, IsOk());
  const Viewer alice{.owner = "alice"}, bob{.owner = "bob"};

  EXPECT_THAT(jobs->Get(job->id, alice), IsOk());
  EXPECT_THAT(jobs->Get(job->id, admin), IsOk());
  EXPECT_THAT(jobs->Get(job->id, bob), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_THAT(jobs->Cancel(job->id, bob), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_THAT(jobs->Delete(job->id, bob), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_THAT(jobs->Open(job->id, bob), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_EQ(jobs->Get(job->id, bob).status(), NoSuchJob(job->id));
  EXPECT_EQ(jobs->Get("absent", bob).status(), NoSuchJob("absent"));
  EXPECT_EQ(jobs->List(alice, {}, {}, 10)->size(), 1U);
  EXPECT_EQ(jobs->List(bob, {}, {}, 10)->size(), 0U);
  EXPECT_EQ(jobs->List(admin, {}, {}, 10)->size(), 1U);
}

TEST_F(JobsTest, AnAbandonedSubmissionLeavesNothing) {
  {
    auto submission = jobs->Begin({.model = "m"});
    ASSERT_THAT(submission, IsOk());
    ASSERT_THAT((*submission)->Add("{\"text\": \"a\"}\n"), IsOk());
  }

  EXPECT_TRUE(std::filesystem::is_empty(folder.path() / "incoming"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path() / "jobs"));
}

TEST_F(JobsTest, AKeyReturnsTheFirstJobOrRefusesOtherContent) {
  const absl::StatusOr<Job> first = Submit("alice", "k", "a");
  ASSERT_THAT(first, IsOk());

  EXPECT_EQ(Submit("alice", "k", "a")->id, first->id);
  EXPECT_THAT(Submit("alice", "k", "b"),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr(first->id)));
  EXPECT_NE(Submit("bob", "k", "a")->id, first->id);
  EXPECT_EQ(jobs->List(admin, {}, {}, 10)->size(), 2U);
}

TEST_F(JobsTest, MoreUnfinishedJobsThanAllowedAreRefused) {
  limits.max_unfinished = 1;
  Reopen();
  const absl::StatusOr<Job> first = Submit("");
  ASSERT_THAT(first, IsOk());

  EXPECT_THAT(Submit(""),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("max_queued_jobs")));
  ASSERT_THAT(jobs->Cancel(first->id, admin), IsOk());
  EXPECT_THAT(Submit(""), IsOk());
}

TEST_F(JobsTest, ARunningJobIsQueuedAgainAfterARestartAndCountsIt) {
  Job job = *Submit("");
  job.state = JobState::kRunning;
  job.started_at = 5;
  ASSERT_THAT(jobs->Save(job), IsOk());

  Reopen();

  const Job found = *jobs->Get(job.id, admin);
  EXPECT_EQ(found.state, JobState::kQueued);
  EXPECT_EQ(found.restarts, 1);
  EXPECT_EQ(found.failed_starts, 1);
  Reopen();  // It was queued this time: the process ended by itself.
  EXPECT_EQ(jobs->Get(job.id, admin)->restarts, 2);
  EXPECT_EQ(jobs->Get(job.id, admin)->failed_starts, 1);
}

TEST_F(JobsTest, AStartRemovesWhatBelongsToNoJob) {
  const Job job = *Submit("");
  std::filesystem::create_directories(folder.path() / "jobs" / "stray");
  std::filesystem::create_directories(folder.path() / "incoming" / "half");

  Reopen();

  EXPECT_TRUE(HasFolder(job));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "jobs" / "stray"));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "incoming" / "half"));
}

TEST_F(JobsTest, FoldersWithoutADatabaseAreNotTouched) {
  const Job job = *Submit("");
  jobs.reset();
  for (const char* file : {"jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm"}) {
    std::filesystem::remove(folder.path() / file);
  }

  EXPECT_THAT(Jobs::Open(folder.path(), limits, metrics),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("Nothing was changed")));
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "jobs" / job.id / "prompts.jsonl"));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "jobs.sqlite3"));
}

TEST_F(JobsTest, ACancelReachesTheRunnerAndLeavesItTheFiles) {
  const Job job = *Submit("");
  const auto token = std::make_shared<CancellationToken>();
  jobs->SetCurrent(job.id, token);

  ASSERT_THAT(jobs->Cancel(job.id, admin), IsOk());

  EXPECT_FALSE(token->Check().ok());
  EXPECT_TRUE(HasFolder(job));
  EXPECT_THAT(jobs->Save(job), StatusIs(absl::StatusCode::kFailedPrecondition, _));
  jobs->ClearCurrent();
  EXPECT_FALSE(HasFolder(job));
}

TEST_F(JobsTest, AnEndedJobKeepsItsResultOnly) {
  const Job job = *Submit("");

  const Job ended = Succeed(job);

  EXPECT_EQ(ended.state, JobState::kSucceeded);
  EXPECT_FALSE(std::filesystem::exists(jobs->FilesOf(job.id).prompts()));
  EXPECT_THAT(jobs->Open(job.id, admin), IsOk());
  Reopen();
  EXPECT_THAT(jobs->Open(job.id, admin), IsOk());
  std::filesystem::remove(jobs->FilesOf(job.id).result());
  EXPECT_THAT(jobs->Open(job.id, admin), StatusIs(absl::StatusCode::kDataLoss, _));
}

TEST_F(JobsTest, TheOldestResultsGoWhenAllTogetherAreTooLarge) {
  limits.retention_bytes = 250;
  Reopen();

  const Job first = Succeed(*Submit("")), second = Succeed(*Submit("")),
            third = Succeed(*Submit(""));

  EXPECT_THAT(jobs->Get(first.id, admin), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_FALSE(HasFolder(first));
  EXPECT_THAT(jobs->Get(second.id, admin), IsOk());
  EXPECT_THAT(jobs->Get(third.id, admin), IsOk());
}

TEST_F(JobsTest, EndedJobsGoAfterTheirTimeAndOthersStay) {
  limits.retention_seconds = 0.3;
  Reopen();
  const Job ended = Succeed(*Submit("")), queued = *Submit("");

  while (jobs->Get(ended.id, admin).ok()) absl::SleepFor(absl::Milliseconds(10));

  EXPECT_FALSE(HasFolder(ended));
  EXPECT_THAT(jobs->Get(queued.id, admin), IsOk());
}

TEST_F(JobsTest, ADrainRefusesSubmissionsAndTellsWatchers) {
  auto begun = jobs->Begin({.model = "m"});
  ASSERT_THAT(begun, IsOk());
  ASSERT_THAT((*begun)->Add("{\"text\": \"a\"}"), IsOk());
  const Job job = *Submit("");
  absl::Notification told;
  jobs->feed().Add(job.id, [&] { told.Notify(); });

  jobs->Drain();

  told.WaitForNotification();
  EXPECT_THAT(Submit(""), StatusIs(absl::StatusCode::kUnavailable, _));
  EXPECT_THAT((*begun)->Commit(), StatusIs(absl::StatusCode::kUnavailable, _));
}

}  // namespace
}  // namespace ess::jobs
