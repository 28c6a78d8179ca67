#include "server/jobs/job_run.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "server/base/fault_point.h"
#include "server/base/status_macros.h"

namespace ess::jobs {
namespace {

std::string WriteNotes(const LayerRecord& record) {
  return nlohmann::json{{"routes", record.routes}, {"below", record.below_noise_floor}}.dump();
}

// "a" + "a+b" -> "a+b".
void JoinRoutes(const std::string& added, std::string& routes) {
  for (size_t begin = 0; begin < added.size();) {
    const size_t end = std::min(added.find('+', begin), added.size());
    const std::string route = added.substr(begin, end - begin);
    if (("+" + routes + "+").find("+" + route + "+") == std::string::npos) {
      routes += routes.empty() ? route : "+" + route;
    }
    begin = end + 1;
  }
}

void AddNotes(const std::string& text, LayerNotes& notes) {
  const nlohmann::json read = nlohmann::json::parse(text);
  for (size_t m = 0; m < notes.routes.size(); ++m) {
    JoinRoutes(read.at("routes").at(m).get<std::string>(), notes.routes[m]);
    notes.below_noise_floor[m] += read.at("below").at(m).get<int64_t>();
  }
}

std::string TimeText(double seconds) {
  return absl::FormatTime(absl::RFC3339_sec, absl::UnixEpoch() + absl::Seconds(seconds),
                          absl::UTCTimeZone());
}

// What differs between two runs of the same work.
std::string RunText(const Job& job) {
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  nlohmann::ordered_json run = {{"job", job.id},
                                {"submitted_at", TimeText(job.submitted_at)},
                                {"started_at", TimeText(job.started_at)},
                                {"finished_at", TimeText(UnixSeconds())},
                                {"run_seconds", job.run_seconds},
                                {"restarts", job.restarts},
                                {"host", host}};
  if (const char* slurm = std::getenv("SLURM_JOB_ID")) run["slurm_job_id"] = slurm;
  return run.dump(2) + "\n";
}

}  // namespace

// Takes one group of prompts, and puts its values into the working file.
class JobRun::GroupReceiver : public ProfileReceiver {
 public:
  GroupReceiver(JobRun& run, int64_t group, const StepContext& step)
      : run_(run), group_(group), first_(run.groups_[group].first), step_(step) {}

  absl::Status OnPlan(const ProfilePlan&, const residency::ModelStatus& model,
                      const std::vector<std::vector<std::string>>&) override {
    const auto& begun = run_.plan_->model;
    for (const auto& [field, now] : {std::pair("weight_digest", model.weight_digest),
                                     std::pair("dtype", model.description->dtype),
                                     std::pair("device", model.description->device)}) {
      if (begun.at(field) == now) continue;
      return absl::FailedPreconditionError(
          fmt::format("model: {} of '{}' was '{}' when the job began and is '{}' now; submit it "
                      "again",
                      field, model.name, begun.at(field), now));
    }
    return absl::OkStatus();
  }

  bool Wants(int64_t layer) const override { return !run_.done_[group_][layer]; }

  absl::Status OnEss(const EssPiece& piece) override {
    for (int64_t m = 0; m < std::ssize(run_.plan_->measures); ++m) {
      ResultPiece values{.layer = piece.layer,
                         .measure = m,
                         .prompt = first_ + piece.prompt,
                         .first_head = piece.first_head,
                         .head_count = piece.head_count,
                         .values = piece.ess.values[m]};
      if (run_.plan_->certify) values.certain = piece.ess.certain[m];
      ESS_RETURN_IF_ERROR(run_.result_->Write(values));
    }
    ESS_FAULT_POINT("job_values");
    if (piece.prompt != last_prompt_) {
      last_prompt_ = piece.prompt;
      run_.job_.cells_done = run_.cells_saved_ + piece.prompt;
      run_.services_.jobs.ShowProgress(run_.job_);
    }
    return GiveWay(step_);
  }

  absl::Status OnLayer(int64_t layer, const LayerRecord& record) override {
    std::vector<float> floors(record.noise_floors.begin(), record.noise_floors.end());
    ESS_RETURN_IF_ERROR(run_.result_->WriteFloors(layer, first_, floors));
    ESS_RETURN_IF_ERROR(run_.result_->Sync());
    ESS_FAULT_POINT("job_layer");
    Job job = run_.job_;
    job.cells_done = run_.cells_saved_ + run_.groups_[group_].count;
    job.failed_starts = 0;
    ESS_RETURN_IF_ERROR(run_.services_.jobs.SaveLayer(
        job, {.group = group_, .layer = layer, .notes = WriteNotes(record)}));
    run_.job_.failed_starts = 0;
    run_.MarkDone(group_, layer);
    run_.services_.jobs.ShowProgress(run_.job_);
    ESS_FAULT_POINT("job_layer_saved");
    last_prompt_ = -1;
    // Somebody waits for memory: after this layer is a good moment.
    if (!IsLast() && run_.services_.residency.IsNeededElsewhere(run_.job_.model)) {
      return absl::AbortedError("others need the memory");
    }
    return absl::OkStatus();
  }

  absl::Status OnSummary(const ProfileSummary&) override { return absl::OkStatus(); }

 private:
  bool IsLast() const { return run_.finished_[group_] == std::ssize(run_.plan_->layers); }

  JobRun& run_;
  const int64_t group_;
  const int64_t first_;
  const StepContext& step_;
  int64_t last_prompt_ = -1;
};

JobRun::JobRun(const RunServices& services, Job job, ProfileJob specification)
    : services_(services),
      files_(services.jobs.FilesOf(job.id)),
      job_(std::move(job)),
      specification_(std::move(specification)) {}

absl::StatusOr<std::unique_ptr<JobRun>> JobRun::Open(const RunServices& services, Job job,
                                                     ProfileJob specification) {
  std::unique_ptr<JobRun> run(new JobRun(services, std::move(job), std::move(specification)));
  std::error_code error;
  if (std::filesystem::exists(run->files_.plan(), error)) ESS_RETURN_IF_ERROR(run->Load());
  return run;
}

absl::Status JobRun::Load() {
  ESS_ASSIGN_OR_RETURN(JobPlan plan, ReadPreparedPlan(files_));
  ESS_RETURN_IF_ERROR(TakePlan(std::move(plan)));
  absl::Status status;
  ESS_RETURN_IF_ERROR(
      services_.jobs.store().ForEachLayer(job_.sequence, [&](const FinishedLayer& layer) {
        if (layer.group < std::ssize(groups_) && layer.layer < std::ssize(plan_->layers)) {
          MarkDone(layer.group, layer.layer);
        } else {
          status = absl::DataLossError("the job's layers do not fit its plan");
        }
      }));
  ESS_RETURN_IF_ERROR(status);
  AdvanceGroup();
  AddRunTime(0);
  return absl::OkStatus();
}

absl::Status JobRun::TakePlan(JobPlan plan) {
  plan_ = std::make_unique<JobPlan>(std::move(plan));
  layout_ = std::make_unique<ResultLayout>(*plan_);
  std::error_code error;
  if (!std::filesystem::exists(files_.result(), error)) {
    ESS_ASSIGN_OR_RETURN(ResultFile file, ResultFile::Resume(files_, *plan_, *layout_));
    result_ = std::make_unique<ResultFile>(std::move(file));
  }
  groups_ = MakeGroups(plan_->lengths);
  int64_t token = 0;
  for (const PromptGroup& group : groups_) {
    first_token_.push_back(token);
    double work = 0;
    for (int64_t p = group.first; p < group.first + group.count; ++p) {
      token += plan_->lengths[p];
      work += plan_->work.at(WorkLength(plan_->lengths[p]));
    }
    work_.push_back(work);
  }
  done_.assign(groups_.size(), std::vector<bool>(plan_->layers.size()));
  finished_.assign(groups_.size(), 0);
  job_.cells_total = plan_->prompts() * std::ssize(plan_->layers);
  job_.prompts_done = 0;
  return absl::OkStatus();
}

int64_t JobRun::NextTokens() const {
  if (plan_ == nullptr || IsComputed()) return 1;
  const PromptGroup& group = groups_[next_group_];
  const auto begin = plan_->lengths.begin() + group.first;
  return std::accumulate(begin, begin + group.count, int64_t{0});
}

absl::Status JobRun::Step(const StepContext& step) {
  if (plan_ == nullptr) {
    ESS_ASSIGN_OR_RETURN(JobPlan plan, PrepareJob(files_, specification_, services_.pipeline,
                                                  services_.server_version,
                                                  services_.jobs.limits().max_result_bytes, step));
    const absl::Status taken = TakePlan(std::move(plan));
    if (!taken.ok()) {
      plan_.reset();
      return taken;
    }
    return services_.jobs.Save(job_);
  }
  ESS_ASSIGN_OR_RETURN(const ProfileJob group, GroupJob(groups_[next_group_]));
  GroupReceiver receiver(*this, next_group_, step);
  StageTimes stages;
  const absl::Status status = services_.pipeline.Run(group, /*small=*/false, step.cancellation,
                                                     Aside(step), receiver, stages);
  AdvanceGroup();
  ShowDone(0);
  return status;
}

absl::StatusOr<ProfileJob> JobRun::GroupJob(const PromptGroup& group) const {
  ProfileJob job = specification_;
  job.request_id = job_.id;
  job.token_texts = false;
  job.longest_of_set = *std::max_element(plan_->lengths.begin(), plan_->lengths.end());
  ESS_ASSIGN_OR_RETURN(const PosixFile tokens, PosixFile::OpenForReading(files_.tokens()));
  int64_t offset = first_token_[next_group_] * 8;
  for (int64_t p = group.first; p < group.first + group.count; ++p) {
    std::vector<int64_t> ids(static_cast<size_t>(plan_->lengths[p]));
    ESS_RETURN_IF_ERROR(tokens.ReadAt(offset, ids.data(), std::ssize(ids) * 8));
    offset += std::ssize(ids) * 8;
    job.prompts.push_back({.id = std::to_string(p), .content = std::move(ids)});
  }
  return job;
}

void JobRun::AdvanceGroup() {
  while (next_group_ < std::ssize(groups_) && finished_[next_group_] == std::ssize(plan_->layers)) {
    ++next_group_;
  }
}

void JobRun::MarkDone(int64_t group, int64_t layer) {
  const auto layers = std::ssize(plan_->layers);
  done_[group][layer] = true;
  ++finished_[group];
  cells_saved_ += groups_[group].count;
  work_done_ += work_[group] / static_cast<double>(layers);
  if (finished_[group] == layers) job_.prompts_done += groups_[group].count;
  ShowDone(0);
}

void JobRun::ShowDone(int64_t layer_prompts) {
  job_.cells_done = cells_saved_ + layer_prompts;
  job_.seconds_left.reset();
  if (job_.prompts_done == 0 || seconds_per_work_ == 0) return;
  const double work = std::accumulate(work_.begin(), work_.end(), 0.0);
  job_.seconds_left = seconds_per_work_ * std::max(work - work_done_, 0.0);
}

void JobRun::AddRunTime(double seconds) {
  job_.run_seconds += seconds;
  if (work_done_ > 0) seconds_per_work_ = job_.run_seconds / work_done_;
}

absl::Status JobRun::Finish(const CancellationToken& cancellation) {
  if (result_ != nullptr) {
    std::vector<LayerNotes> notes(
        plan_->layers.size(), {.routes = std::vector<std::string>(plan_->measures.size()),
                               .below_noise_floor = std::vector<int64_t>(plan_->measures.size())});
    ESS_RETURN_IF_ERROR(services_.jobs.store().ForEachLayer(
        job_.sequence,
        [&](const FinishedLayer& layer) { AddNotes(layer.notes, notes[layer.layer]); }));
    ESS_RETURN_IF_ERROR(result_->Finish(notes));
    result_.reset();
  }
  ESS_FAULT_POINT("job_result");
  ESS_ASSIGN_OR_RETURN(const FinishedResult result, DescribeResult(files_, cancellation));
  ESS_RETURN_IF_ERROR(WriteFileAtomically(files_.run(), RunText(job_)));
  ESS_FAULT_POINT("job_run");
  return services_.jobs.Succeed(job_, result);
}

}  // namespace ess::jobs
