#include "server/inference/infer_work.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/time/clock.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/cut_text.h"
#include "server/base/status_macros.h"
#include "server/inference/raw_tensor.h"
#include "server/inference/tensor_contract.h"

namespace ess::inference {
namespace {

// Longer waits are as good as endless, and no number of nanoseconds overflows.
constexpr absl::Duration kLongestTimer = absl::Hours(24 * 365);
constexpr size_t kMaxLoggedId = 128;
// What the pipeline calls the prompts in its errors.
constexpr std::string_view kPromptsField = "prompts: ";

std::vector<int32_t> ToInt32(const std::vector<int64_t>& values) {
  return {values.begin(), values.end()};
}

}  // namespace

std::string ServedName(const InferContext& context, const std::string& model) {
  return context.catalogue.Find(model).ok() ? model : "";
}

InferWork::InferWork(const InferContext& context, const CancellationToken& cancellation,
                     const ModelInferRequest& request, Answers answers)
    : QueuedWork(context.queue, context.services.metrics, cancellation,
                 ServedName(context, request.model_name())),
      context_(context),
      model_name_(request.model_name()),
      id_(request.id()),
      answers_(answers),
      arrival_(absl::Now()) {}

absl::StatusOr<InferRequest> InferWork::Decode(const ModelInferRequest& request) const {
  if (model_name_.empty()) {
    return absl::InvalidArgumentError(
        "model_name: the name is empty; RepositoryIndex has the names");
  }
  ESS_RETURN_IF_ERROR(context_.catalogue.Find(model_name_).status());
  ESS_RETURN_IF_ERROR(CheckVersion(model_name_, request.model_version()));
  return DecodeInferRequest(request, context_.limits);
}

void InferWork::Begin(const ModelInferRequest& request, const std::string& request_id,
                      const std::string& caller) {
  absl::StatusOr<InferRequest> decoded = Decode(request);
  if (!decoded.ok()) return End(decoded.status());
  request_ = *std::move(decoded);
  request_.job.request_id = request_id;
  if (!Enqueue(caller, request_.priority, ApproximateTokens(request_.job))) return;
  StartTimer(request_.longest_wait);
  const auto self = std::static_pointer_cast<InferWork>(shared_from_this());
  context_.pipeline.WhenReady(request_.job,
                              std::shared_ptr<const CancellationToken>(self, &cancellation()),
                              [self](const absl::Status& status) { self->OnModelReady(status); });
}

void InferWork::StartTimer(absl::Duration longest_wait) {
  if (longest_wait > kLongestTimer) return;
  timer_ = std::make_unique<grpc::Alarm>();
  timer_->Set(absl::ToChronoTime(absl::Now() + longest_wait),
              [weak = weak_from_this(), longest_wait](bool expired) {
                const std::shared_ptr<QueuedWork> work = weak.lock();
                if (!expired || work == nullptr) return;
                work->EndQueued(absl::DeadlineExceededError(
                    fmt::format("the request has waited {} us in the queue, the limit that it set "
                                "(timeout)",
                                absl::ToInt64Microseconds(longest_wait))));
              });
}

void InferWork::OnModelReady(const absl::Status& status) {
  if (!status.ok()) return EndQueued(status);
  small_ = context_.pipeline.IsSmall(request_.job);
  StartQueued(small_ ? admission::Weight::kSmall : admission::Weight::kLarge, "load");
}

absl::Status InferWork::Run() {
  return context_.pipeline.Run(request_.job, small_, cancellation(), Aside(), *this, stages());
}

void InferWork::OnEnded(const absl::Status& status) {
  tensor_.reset();
  const absl::Status translated = context_.services.calls.StatusOf(Translated(status));
  const absl::Duration all = absl::Now() - arrival_;
  if (translated.ok()) {
    context_.statistics.AddSuccess(model_name_, std::ssize(request_.job.prompts), TimesOf(stages()),
                                   all);
  } else if (context_.catalogue.Find(model_name_).ok()) {
    context_.statistics.AddFailure(model_name_, all);
  }
  OnFinished(translated);
}

absl::Status InferWork::Translated(const absl::Status& status) const {
  if (status.code() == absl::StatusCode::kFailedPrecondition) {
    const absl::StatusOr<residency::ModelStatus> model = context_.residency.Get(model_name_);
    if (model.ok() && model->state == residency::ModelState::kFailed) {
      return absl::UnavailableError(fmt::format("UNAVAILABLE: {}", std::string(status.message())));
    }
  }
  const std::string message(status.message());
  if (!message.starts_with(kPromptsField) || request_.prompt_tensor.empty()) return status;
  return absl::Status(status.code(), fmt::format("{}: {}", request_.prompt_tensor,
                                                 message.substr(kPromptsField.size())));
}

absl::Status InferWork::OnPlan(const ProfilePlan& plan, const residency::ModelStatus& model,
                               const std::vector<std::vector<std::string>>&) {
  plan_ = &plan;
  model_ = model;
  heads_ = HeadAxis(plan);
  nlohmann::ordered_json facts = {{"prompts", plan.lengths.size()},
                                  {"positions", plan.PositionCount()}};
  if (!id_.empty()) facts["inference_id"] = CutText(id_, kMaxLoggedId);
  SetFacts(std::move(facts));
  ESS_RETURN_IF_ERROR(ReserveAnswer());
  NewTensor(0);
  return absl::OkStatus();
}

bool InferWork::Wants(const char* output) const {
  return std::find(request_.outputs.begin(), request_.outputs.end(), output) !=
         request_.outputs.end();
}

int64_t InferWork::LayersOfAnAnswer() const {
  return answers_ == Answers::kOne ? std::ssize(plan_->layers) : 1;
}

absl::Status InferWork::ReserveAnswer() {
  const EssTensor::Shape shape = EssTensor::ShapeOf(*plan_, std::ssize(request_.job.measures),
                                                    LayersOfAnAnswer(), std::ssize(heads_));
  const int64_t element_bytes = 4 + (request_.job.options.certify ? 1 : 0);
  int64_t bytes = EssTensor::ElementCount(shape);
  if (__builtin_mul_overflow(bytes, element_bytes, &bytes) || bytes > context_.max_answer_bytes) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: the answer would have {} bytes, of shape [{}]; the limit is {} "
        "(max_inference_answer_bytes); ask for fewer prompts, measures, layers, heads or "
        "positions, "
        "{}for ess.v1.EssProfiler/Profile, which answers in small messages, or for a job "
        "(SubmitJob)",
        kEss, bytes, fmt::join(shape, ", "), context_.max_answer_bytes,
        answers_ == Answers::kOne ? "use ModelStreamInfer, which answers layer by layer, or ask "
                                  : ""));
  }
  absl::StatusOr<admission::ByteBudget::Reservation> reserved =
      context_.answer_budget.Reserve(bytes);
  if (!reserved.ok()) {
    metrics().requests_shed.Increment({ServedName(context_, model_name_), "answer_bytes"});
    return reserved.status();
  }
  reservation_ = *std::move(reserved);
  return absl::OkStatus();
}

void InferWork::NewTensor(int64_t first_layer) {
  tensor_.emplace(*plan_, heads_, std::ssize(request_.job.measures), first_layer,
                  LayersOfAnAnswer(), request_.job.options.certify);
}

absl::Status InferWork::OnEss(const EssPiece& piece) {
  tensor_->Add(piece);
  // The last answer waits for the summary.
  const bool last = piece.layer + 1 == std::ssize(plan_->layers);
  if (answers_ == Answers::kOne || last || !tensor_->HasAll(piece.layer)) return absl::OkStatus();
  ESS_RETURN_IF_ERROR(Deliver(/*final=*/false));
  NewTensor(piece.layer + 1);
  return absl::OkStatus();
}

absl::Status InferWork::OnSummary(const ProfileSummary&) {
  StageTimer timer(stages(), "send");
  return Deliver(/*final=*/true);
}

absl::Status InferWork::Deliver(bool final) { return OnAnswer(MakeAnswer(final), final); }

ModelInferResponse InferWork::MakeAnswer(bool final) {
  ModelInferResponse answer;
  answer.set_model_name(model_name_);
  answer.set_model_version(kVersion);
  answer.set_id(id_);
  auto& parameters = *answer.mutable_parameters();
  parameters["request_id"].set_string_param(request_.job.request_id);
  parameters["server_version"].set_string_param(context_.server_version);
  parameters["weight_digest"].set_string_param(model_.weight_digest);
  parameters["architecture"].set_string_param(model_.description->architecture);
  parameters["dtype"].set_string_param(model_.description->dtype);
  parameters["device"].set_string_param(model_.description->device);
  if (model_.options.random_init_seed) {
    parameters["random_init_seed"].set_int64_param(
        static_cast<int64_t>(*model_.options.random_init_seed));
  }
  const InferTimes times = TimesOf(stages());
  parameters["queue_ns"].set_int64_param(absl::ToInt64Nanoseconds(times.queue));
  if (final) parameters["compute_ns"].set_int64_param(absl::ToInt64Nanoseconds(times.compute()));

  const int64_t first_layer = tensor_->first_layer();
  const EssTensor::Shape shape = tensor_->shape();
  const auto add = [&answer](const std::string& name, std::span<const int64_t> sizes,
                             std::string raw) {
    auto* const output = answer.add_outputs();
    output->set_name(name);
    output->set_datatype(std::string(FindTensor(OutputTensors(), name)->datatype));
    output->mutable_shape()->Add(sizes.begin(), sizes.end());
    answer.add_raw_output_contents(std::move(raw));
  };
  const auto add_bytes = [&add](const std::string& name, const std::vector<std::string>& values) {
    add(name, std::array{std::ssize(values)}, PackBytes(values));
  };
  const auto add_integers = [&add](const std::string& name, const std::vector<int32_t>& values) {
    add(name, std::array{std::ssize(values)}, PackIntegers(values));
  };
  for (const std::string& name : request_.outputs) {
    if (name == kEss) add(name, shape, tensor_->TakeValues());
    if (name == kCertain) add(name, shape, tensor_->TakeCertain());
    if (name == kMeasure) {
      std::vector<std::string> measures;
      for (const Measure& measure : request_.job.measures) {
        measures.push_back(FormatMeasure(measure));
      }
      add_bytes(name, measures);
    }
    if (name == kLayer || name == kLayerIndex) {
      std::vector<std::string> names;
      std::vector<int32_t> indices;
      for (int64_t l = first_layer; l < first_layer + shape[2]; ++l) {
        const models::Mixer& mixer = model_.description->mixers[plan_->layers[l].mixer];
        names.push_back(mixer.name);
        indices.push_back(static_cast<int32_t>(mixer.layer_index));
      }
      if (name == kLayer) add_bytes(name, names);
      if (name == kLayerIndex) add_integers(name, indices);
    }
    if (name == kHeadIndex) add_integers(name, ToInt32(heads_));
    if (name == kPositionIndex) add_integers(name, ToInt32(plan_->all_positions));
    if (name == kTokensUsed) add_integers(name, ToInt32(plan_->lengths));
  }
  return answer;
}

}  // namespace ess::inference
