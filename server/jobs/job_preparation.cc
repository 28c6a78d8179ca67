#include "server/jobs/job_preparation.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "server/base/fault_point.h"
#include "server/base/json_file.h"
#include "server/base/status_macros.h"
#include "server/jobs/posix_file.h"
#include "server/jobs/prompt_spool.h"
#include "server/jobs/python_json.h"
#include "server/jobs/result_file.h"
#include "server/jobs/result_layout.h"
#include "server/pipeline/profile_estimate.h"
#include "server/pipeline/utilization.h"

namespace ess::jobs {
namespace {

constexpr absl::Duration kLongestYield = absl::Seconds(5);
constexpr int64_t kChunkPrompts = 256;
constexpr int64_t kChunkBytes = 1 << 20;
constexpr int64_t kMaxPlanBytes = 256 << 20;
// Of the disk, left to the database and others.
constexpr int64_t kSpareBytes = 16 << 20;

// The prompts as they are tokenized.
class TokenWriter {
 public:
  explicit TokenWriter(const JobFiles& files) : files_(files) {}

  absl::Status Open() {
    ESS_ASSIGN_OR_RETURN(tokens_file_, Create(files_.tokens()));
    ESS_ASSIGN_OR_RETURN(lengths_file_, Create(files_.lengths()));
    ESS_ASSIGN_OR_RETURN(json_file_, Create(files_.prompts_json()));
    tokens_ = std::make_unique<FileAppender>(*tokens_file_);
    lengths_ = std::make_unique<FileAppender>(*lengths_file_);
    json_ = std::make_unique<FileAppender>(*json_file_);
    return absl::OkStatus();
  }

  absl::Status Add(const std::string& id, const std::vector<int64_t>& token_ids,
                   const std::vector<std::string>& texts) {
    const int64_t length = std::ssize(token_ids);
    if (length > std::ssize(longest_)) longest_ = token_ids;
    ESS_RETURN_IF_ERROR(tokens_->Append(token_ids.data(), length * 8));
    ESS_RETURN_IF_ERROR(lengths_->Append(&length, sizeof(length)));
    std::string entry = plan_lengths_.empty() ? R"([{"id": )" : R"(, {"id": )";
    plan_lengths_.push_back(length);
    AppendJsonString(id, entry);
    entry += R"(, "tokens": [)";
    for (size_t t = 0; t < texts.size(); ++t) {
      if (t > 0) entry += ", ";
      AppendJsonString(texts[t], entry);
    }
    return json_->Append(entry + "]}");
  }

  absl::Status Finish() {
    ESS_RETURN_IF_ERROR(json_->Append("]"));
    for (FileAppender* appender : {tokens_.get(), lengths_.get(), json_.get()}) {
      ESS_RETURN_IF_ERROR(appender->Flush());
    }
    for (const PosixFile* file : {tokens_file_.get(), lengths_file_.get(), json_file_.get()}) {
      ESS_RETURN_IF_ERROR(file->Sync());
    }
    return absl::OkStatus();
  }

  const std::vector<int64_t>& longest() const { return longest_; }
  const std::vector<int64_t>& lengths() const { return plan_lengths_; }
  int64_t json_bytes() const { return json_->offset(); }

 private:
  static absl::StatusOr<std::unique_ptr<PosixFile>> Create(const std::filesystem::path& path) {
    ESS_ASSIGN_OR_RETURN(PosixFile file, PosixFile::Create(path));
    return std::make_unique<PosixFile>(std::move(file));
  }

  const JobFiles files_;
  std::unique_ptr<PosixFile> tokens_file_, lengths_file_, json_file_;
  std::unique_ptr<FileAppender> tokens_, lengths_, json_;
  std::vector<int64_t> plan_lengths_;
  std::vector<int64_t> longest_;
};

absl::Status TokenizeAll(const JobFiles& files, const ProfileJob& specification,
                         const ProfilePipeline& pipeline, const StepContext& step,
                         TokenWriter& writer) {
  ESS_ASSIGN_OR_RETURN(PromptReader reader, PromptReader::Open(files.prompts()));
  // Measures and positions are checked once, of the longest prompt.
  ProfileJob part = specification;
  part.measures.clear();
  part.positions = {};
  StageTimes stages;
  while (true) {
    ESS_ASSIGN_OR_RETURN(std::vector<JobPrompt> prompts, reader.Next(kChunkPrompts, kChunkBytes));
    if (prompts.empty()) return absl::OkStatus();
    part.prompts.clear();
    for (JobPrompt& prompt : prompts) {
      part.prompts.push_back({.id = prompt.id, .content = std::move(prompt.content)});
    }
    ESS_FAULT_POINT("job_prepare");
    ESS_ASSIGN_OR_RETURN(const PreparedProfile prepared,
                         pipeline.Prepare(part, step.cancellation, Aside(step), stages));
    for (size_t p = 0; p < prompts.size(); ++p) {
      ESS_RETURN_IF_ERROR(
          writer.Add(prompts[p].id, prepared.plan.token_ids[p], prepared.token_texts[p]));
    }
    ESS_RETURN_IF_ERROR(GiveWay(step));
  }
}

std::map<std::string, std::string> ManifestModel(const residency::ModelStatus& model) {
  std::map<std::string, std::string> fields = {{"name", model.name},
                                               {"architecture", model.architecture},
                                               {"dtype", model.description->dtype},
                                               {"device", model.description->device},
                                               {"weight_digest", model.weight_digest}};
  if (model.options.random_init_seed) {
    fields["random_init"] = std::to_string(*model.options.random_init_seed);
  }
  return fields;
}

const char* ReduceName(Reduction reduction) {
  switch (reduction) {
    case Reduction::kNone:
      return "";
    case Reduction::kHeads:
      return "heads";
    case Reduction::kPositions:
      return "positions";
  }
  return "";
}

// Seconds by length, as JobPlan has them.
std::map<int64_t, double> WorkByLength(const ProfileJob& job, const ProfilePlan& longest,
                                       const std::vector<int64_t>& lengths,
                                       const models::ModelDescription& model, int threads) {
  std::set<int64_t> wanted;
  for (const int64_t length : lengths) wanted.insert(WorkLength(length));
  std::map<int64_t, double> work;
  ProfilePlan plan = longest;
  for (const int64_t length : wanted) {
    plan.lengths = {length};
    const auto& positions = longest.all_positions;
    plan.positions = {
        {positions.begin(), std::lower_bound(positions.begin(), positions.end(), length)}};
    const ProfileEstimate estimate = EstimateProfile(job, plan, model, threads);
    work[length] = estimate.forward_seconds + estimate.ess_seconds;
  }
  return work;
}

JobPlan MakePlan(const ProfileJob& job, const PreparedProfile& longest, const TokenWriter& writer,
                 const std::string& server_version, int threads) {
  const models::ModelDescription& model = longest.lease.model().description();
  JobPlan plan{.model = ManifestModel(longest.model),
               .server_version = server_version,
               .horizon = job.options.horizon,
               .certify = job.options.certify,
               .reduce = ReduceName(job.reduction),
               .positions = longest.plan.all_positions,
               .lengths = writer.lengths(),
               .prompts_json_bytes = writer.json_bytes()};
  for (const Measure& measure : job.measures) {
    const bool has_axis = measure.kind == Measure::Kind::kSingularValues;
    plan.measures.push_back(
        {.name = FormatMeasure(measure), .count = has_axis ? measure.count : 0});
  }
  for (const PlannedLayer& planned : longest.plan.layers) {
    const models::Mixer& mixer = model.mixers[planned.mixer];
    JobLayer layer{.name = mixer.name,
                   .layer_index = mixer.layer_index,
                   .operator_class = mixer.operator_class,
                   .heads = planned.heads,
                   .state_size = mixer.state_size};
    for (const int64_t head : planned.heads) layer.channels.push_back(ChannelsOf(mixer, head));
    plan.layers.push_back(std::move(layer));
  }
  plan.work = WorkByLength(job, longest.plan, plan.lengths, model, threads);
  return plan;
}

absl::Status CheckSize(const ResultLayout& layout, const JobFiles& files,
                       int64_t max_result_bytes) {
  if (layout.file_bytes() > max_result_bytes) {
    return absl::InvalidArgumentError(fmt::format(
        "measures: the result would have {} bytes; the limit is {} (max_job_result_bytes); ask for "
        "fewer measures, prompts, layers, heads or positions, or reduce",
        layout.file_bytes(), max_result_bytes));
  }
  ESS_ASSIGN_OR_RETURN(const int64_t free, FreeDiskBytes(files.folder));
  if (layout.working_bytes() + kSpareBytes > free) {
    return DiskFullError(fmt::format(
        "the result needs {} bytes and the disk of state_dir has {} free, of which {} are spared",
        layout.working_bytes(), free, kSpareBytes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status GiveWay(const StepContext& step) {
  ESS_RETURN_IF_ERROR(step.cancellation.Check());
  return step.slot.Yield(kLongestYield, step.cancellation);
}

absl::StatusOr<JobPlan> PrepareJob(const JobFiles& files, const ProfileJob& specification,
                                   const ProfilePipeline& pipeline,
                                   const std::string& server_version, int64_t max_result_bytes,
                                   const StepContext& step) {
  TokenWriter writer(files);
  ESS_RETURN_IF_ERROR(writer.Open());
  ESS_RETURN_IF_ERROR(TokenizeAll(files, specification, pipeline, step, writer));
  ESS_RETURN_IF_ERROR(writer.Finish());

  ProfileJob longest = specification;
  longest.prompts = {{.id = "the longest", .content = writer.longest()}};
  longest.token_texts = false;
  StageTimes stages;
  JobPlan plan;
  {
    ESS_ASSIGN_OR_RETURN(const PreparedProfile prepared,
                         pipeline.Prepare(longest, step.cancellation, Aside(step), stages));
    plan = MakePlan(longest, prepared, writer, server_version, pipeline.threads());
  }
  const ResultLayout layout(plan);
  ESS_RETURN_IF_ERROR(CheckSize(layout, files, max_result_bytes));
  ESS_FAULT_POINT("job_tokenized");
  ESS_RETURN_IF_ERROR(ResultFile::Begin(files, plan, layout).status());
  ESS_FAULT_POINT("job_begun");
  ESS_RETURN_IF_ERROR(WriteFileAtomically(files.plan(), WritePlan(plan)));
  return plan;
}

absl::StatusOr<JobPlan> ReadPreparedPlan(const JobFiles& files) {
  ESS_ASSIGN_OR_RETURN(const std::string text,
                       ReadTextFile(files.plan(), "the job's plan", kMaxPlanBytes));
  ESS_ASSIGN_OR_RETURN(JobPlan plan, ReadPlan(text));
  ESS_ASSIGN_OR_RETURN(const PosixFile lengths, PosixFile::OpenForReading(files.lengths()));
  ESS_ASSIGN_OR_RETURN(const int64_t bytes, lengths.Size());
  plan.lengths.resize(static_cast<size_t>(bytes / 8));
  ESS_RETURN_IF_ERROR(lengths.ReadAt(0, plan.lengths.data(), bytes));
  if (plan.lengths.empty()) return absl::DataLossError("the job's lengths are gone from state_dir");
  return plan;
}

}  // namespace ess::jobs
