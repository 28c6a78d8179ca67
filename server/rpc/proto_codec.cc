#include "server/rpc/proto_codec.h"

#include <algorithm>
#include <set>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"

namespace ess::rpc {
namespace {

constexpr int kMaxMeasures = 64;
constexpr size_t kMaxPromptIdBytes = 256;

IndexSelection DecodeRanges(const google::protobuf::RepeatedPtrField<v1::IndexRange>& ranges) {
  IndexSelection selection;
  for (const v1::IndexRange& range : ranges) {
    selection.ranges.push_back({.first = range.first(),
                                .last = range.last(),
                                .stride = range.stride() == 0 ? 1 : range.stride()});
  }
  return selection;
}

absl::StatusOr<std::vector<PromptInput>> DecodePrompts(const v1::ProfileRequest& request,
                                                       const RequestLimits& limits) {
  if (request.prompts().empty()) {
    return absl::InvalidArgumentError("prompts: the list is empty; at least 1 prompt is needed");
  }
  if (request.prompts_size() > limits.max_prompts) {
    return absl::InvalidArgumentError(
        fmt::format("prompts: {} prompts in one request; the limit is {} (max_prompts)",
                    request.prompts_size(), limits.max_prompts));
  }
  std::vector<PromptInput> prompts;
  std::set<std::string> ids;
  for (int i = 0; i < request.prompts_size(); ++i) {
    const v1::Prompt& prompt = request.prompts(i);
    if (prompt.id().size() > kMaxPromptIdBytes) {
      return absl::InvalidArgumentError(fmt::format("prompts[{}].id: {} bytes; the limit is {}", i,
                                                    prompt.id().size(), kMaxPromptIdBytes));
    }
    PromptInput input{.id = prompt.id().empty() ? std::to_string(i) : prompt.id(), .content = {}};
    if (!ids.insert(input.id).second) {
      return absl::InvalidArgumentError(
          fmt::format("prompts[{}].id: '{}' is the id of another prompt", i, input.id));
    }
    switch (prompt.content_case()) {
      case v1::Prompt::kText:
        if (prompt.text().empty()) {
          return absl::InvalidArgumentError(fmt::format(
              "prompts[{}].text: prompt '{}' is empty; at least 1 token is needed", i, input.id));
        }
        input.content = prompt.text();
        break;
      case v1::Prompt::kTokenIds:
        if (prompt.token_ids().ids().empty()) {
          return absl::InvalidArgumentError(
              fmt::format("prompts[{}].token_ids: prompt '{}' has no tokens; at least 1 is needed",
                          i, input.id));
        }
        input.content =
            std::vector<int64_t>(prompt.token_ids().ids().begin(), prompt.token_ids().ids().end());
        break;
      case v1::Prompt::CONTENT_NOT_SET:
        return absl::InvalidArgumentError(
            fmt::format("prompts[{}]: prompt '{}' has neither text nor token_ids", i, input.id));
    }
    prompts.push_back(std::move(input));
  }
  return prompts;
}

absl::StatusOr<std::vector<Measure>> DecodeMeasures(const v1::ProfileRequest& request,
                                                    const RequestLimits& limits) {
  if (request.measures().empty()) return limits.default_measures;
  if (request.measures_size() > kMaxMeasures) {
    return absl::InvalidArgumentError(
        fmt::format("measures: {} measures in one request; the limit is {}",
                    request.measures_size(), kMaxMeasures));
  }
  std::vector<Measure> measures;
  for (int i = 0; i < request.measures_size(); ++i) {
    ESS_ASSIGN_OR_RETURN(const Measure measure,
                         DecodeMeasure(request.measures(i), fmt::format("measures[{}]", i)));
    if (std::find(measures.begin(), measures.end(), measure) != measures.end()) {
      return absl::InvalidArgumentError(
          fmt::format("measures[{}]: '{}' is there twice", i, FormatMeasure(measure)));
    }
    measures.push_back(measure);
  }
  return measures;
}

absl::Status CheckOptions(const v1::ProfileRequest& request) {
  if (request.has_gaussian()) {
    return absl::UnimplementedError("gaussian: this server profiles prompts only");
  }
  if (request.options().has_horizon()) {
    return absl::UnimplementedError("options.horizon: this server has no horizon");
  }
  if (request.options().certify()) {
    return absl::UnimplementedError("options.certify: this server has no certificates");
  }
  if (request.options().reduction() != v1::REDUCTION_UNSPECIFIED) {
    return absl::UnimplementedError("options.reduction: this server has no reductions");
  }
  return absl::OkStatus();
}

v1::ModelState EncodeState(residency::ModelState state) {
  switch (state) {
    case residency::ModelState::kCold:
      return v1::MODEL_STATE_COLD;
    case residency::ModelState::kLoading:
      return v1::MODEL_STATE_LOADING;
    case residency::ModelState::kReady:
      return v1::MODEL_STATE_READY;
    case residency::ModelState::kUnloading:
      return v1::MODEL_STATE_UNLOADING;
    case residency::ModelState::kFailed:
      return v1::MODEL_STATE_FAILED;
  }
  return v1::MODEL_STATE_UNSPECIFIED;
}

}  // namespace

absl::StatusOr<ProfileJob> DecodeProfileRequest(const v1::ProfileRequest& request,
                                                const RequestLimits& limits) {
  if (request.model().empty()) {
    return absl::InvalidArgumentError("model: the name is empty; ListModels has the names");
  }
  ESS_RETURN_IF_ERROR(CheckOptions(request));
  ProfileJob job;
  job.model = request.model();
  ESS_ASSIGN_OR_RETURN(job.prompts, DecodePrompts(request, limits));
  ESS_ASSIGN_OR_RETURN(job.measures, DecodeMeasures(request, limits));
  job.layers = {.indices = DecodeRanges(request.layers().ranges()),
                .names = {request.layers().names().begin(), request.layers().names().end()}};
  job.heads = DecodeRanges(request.heads().ranges());
  job.positions = DecodeRanges(request.positions().ranges());
  ESS_RETURN_IF_ERROR(ValidateSelection(job.layers.indices, "layers"));
  ESS_RETURN_IF_ERROR(ValidateSelection(job.heads, "heads"));
  ESS_RETURN_IF_ERROR(ValidateSelection(job.positions, "positions"));
  if (request.has_add_special_tokens()) job.add_special_tokens = request.add_special_tokens();
  return job;
}

absl::StatusOr<Measure> DecodeMeasure(const v1::Measure& message, const std::string& field) {
  using Kind = Measure::Kind;
  Measure measure;
  switch (message.kind_case()) {
    case v1::Measure::kTolerance:
      measure = {.kind = Kind::kTolerance, .value = message.tolerance()};
      break;
    case v1::Measure::kRelative:
      measure = {.kind = Kind::kRelative, .value = message.relative()};
      break;
    case v1::Measure::kHeadRelative:
      measure = {.kind = Kind::kHeadRelative, .value = message.head_relative()};
      break;
    case v1::Measure::kEntropy:
      measure = {.kind = Kind::kEntropy};
      break;
    case v1::Measure::kSpectralNorm:
      measure = {.kind = Kind::kSpectralNorm};
      break;
    case v1::Measure::kFrobeniusNorm:
      measure = {.kind = Kind::kFrobeniusNorm};
      break;
    case v1::Measure::kSingularValues:
      measure = {.kind = Kind::kSingularValues, .count = message.singular_values()};
      break;
    case v1::Measure::kCausal:
      measure = {.kind = Kind::kCausal};
      break;
    case v1::Measure::KIND_NOT_SET:
      return absl::InvalidArgumentError(
          fmt::format("{}: no measure is set, or one this server does not know", field));
  }
  const absl::Status valid = ValidateMeasure(measure);
  if (!valid.ok()) {
    return absl::Status(valid.code(), fmt::format("{}: {}", field, std::string(valid.message())));
  }
  return measure;
}

void EncodeMeasure(const Measure& measure, v1::Measure* message) {
  switch (measure.kind) {
    case Measure::Kind::kTolerance:
      message->set_tolerance(measure.value);
      break;
    case Measure::Kind::kRelative:
      message->set_relative(measure.value);
      break;
    case Measure::Kind::kHeadRelative:
      message->set_head_relative(measure.value);
      break;
    case Measure::Kind::kEntropy:
      message->mutable_entropy();
      break;
    case Measure::Kind::kSpectralNorm:
      message->mutable_spectral_norm();
      break;
    case Measure::Kind::kFrobeniusNorm:
      message->mutable_frobenius_norm();
      break;
    case Measure::Kind::kSingularValues:
      message->set_singular_values(static_cast<int32_t>(measure.count));
      break;
    case Measure::Kind::kCausal:
      message->mutable_causal();
      break;
  }
}

absl::StatusOr<residency::ModelOptions> DecodeModelOptions(const v1::ModelOptions& options) {
  residency::ModelOptions decoded;
  if (options.has_random_init()) decoded.random_init_seed = options.random_init().seed();
  switch (options.dtype()) {
    case v1::WEIGHT_DTYPE_UNSPECIFIED:
    case v1::WEIGHT_DTYPE_FLOAT32:
      break;
    case v1::WEIGHT_DTYPE_AS_STORED:
      decoded.as_stored = true;
      break;
    default:
      return absl::InvalidArgumentError(
          fmt::format("options.dtype: {} is not a WeightDtype", static_cast<int>(options.dtype())));
  }
  decoded.device = options.device();
  decoded.pinned = options.pinned();
  return decoded;
}

void EncodeModel(const residency::ModelStatus& model, bool with_layers, v1::Model* message) {
  message->set_name(model.name);
  message->set_state(EncodeState(model.state));
  message->set_reason(model.reason);
  message->set_architecture(model.architecture);
  v1::ModelOptions* options = message->mutable_options();
  if (model.options.random_init_seed) {
    options->mutable_random_init()->set_seed(*model.options.random_init_seed);
  }
  options->set_dtype(model.options.as_stored ? v1::WEIGHT_DTYPE_AS_STORED
                                             : v1::WEIGHT_DTYPE_FLOAT32);
  options->set_device(model.options.device);
  options->set_pinned(model.options.pinned);
  if (model.description == nullptr) return;
  const models::ModelDescription& description = *model.description;
  message->set_device(description.device);
  message->set_dtype(description.dtype);
  message->set_weight_bytes(description.weight_bytes);
  message->set_parameters(description.parameters);
  message->set_vocabulary_size(description.vocabulary_size);
  message->set_max_positions(description.max_positions);
  message->set_hidden_size(description.hidden_size);
  message->set_has_tokenizer(model.has_tokenizer);
  message->set_weight_digest(model.weight_digest);
  if (!with_layers) return;
  for (const models::Mixer& mixer : description.mixers) EncodeMixer(mixer, message->add_layers());
}

void EncodeMixer(const models::Mixer& mixer, v1::MixingOperator* message) {
  message->set_name(mixer.name);
  message->set_layer_index(static_cast<int32_t>(mixer.layer_index));
  message->set_operator_class(mixer.operator_class);
  message->set_head_count(static_cast<int32_t>(mixer.head_count));
  for (int64_t channels : mixer.channels) message->add_channels(static_cast<int32_t>(channels));
  v1::StateSize* state_size = message->mutable_state_size();
  switch (mixer.state_size.kind) {
    case operators::StateSize::Kind::kGrowing:
      state_size->mutable_growing();
      break;
    case operators::StateSize::Kind::kGrowingUpTo:
      state_size->set_growing_up_to(mixer.state_size.size);
      break;
    case operators::StateSize::Kind::kConstant:
      state_size->set_constant(mixer.state_size.size);
      break;
  }
}

void EncodeIndices(const std::vector<int64_t>& indices, v1::IndexSelection* message) {
  for (size_t begin = 0; begin < indices.size();) {
    size_t end = begin + 1;
    const int64_t stride = end < indices.size() ? indices[end] - indices[begin] : 1;
    while (end < indices.size() && indices[end] - indices[end - 1] == stride) ++end;
    v1::IndexRange* range = message->add_ranges();
    range->set_first(indices[begin]);
    range->set_last(indices[end - 1]);
    range->set_stride(stride);
    begin = end;
  }
}

}  // namespace ess::rpc
