#include "server/inference/model_messages.h"

#include <map>
#include <set>
#include <string>

#include "absl/strings/match.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/inference/tensor_contract.h"

namespace ess::inference {
namespace {

using residency::ModelState;
using residency::ModelStatus;

// Facts about a model, for the clients that show them. Those of the weights while they are in
// memory.
std::map<std::string, std::string> Properties(const ModelStatus& model) {
  std::map<std::string, std::string> properties = {{"loads_on_demand", "true"},
                                                   {"state", StateName(model)}};
  if (!model.reason.empty()) properties["reason"] = model.reason;
  if (!model.architecture.empty()) properties["architecture"] = model.architecture;
  if (model.options.random_init_seed) {
    properties["random_init_seed"] = std::to_string(*model.options.random_init_seed);
  }
  if (model.description == nullptr) return properties;
  const models::ModelDescription& description = *model.description;
  properties["dtype"] = description.dtype;
  properties["device"] = description.device;
  properties["weight_digest"] = model.weight_digest;
  properties["parameters"] = std::to_string(description.parameters);
  properties["vocabulary_size"] = std::to_string(description.vocabulary_size);
  properties["max_positions"] = std::to_string(description.max_positions);
  properties["has_tokenizer"] = model.has_tokenizer ? "true" : "false";
  std::set<int64_t> layers;
  std::set<std::string> classes;
  for (const models::Mixer& mixer : description.mixers) {
    layers.insert(mixer.layer_index);
    classes.insert(mixer.operator_class);
  }
  properties["layers"] = std::to_string(layers.size());
  properties["mixing_operators"] = std::to_string(description.mixers.size());
  properties["operator_classes"] = fmt::format("{}", fmt::join(classes, ","));
  return properties;
}

DataType ConfigType(std::string_view datatype) {
  static const std::map<std::string_view, DataType> types = {{"INT32", TYPE_INT32},
                                                             {"INT64", TYPE_INT64},
                                                             {"FP32", TYPE_FP32},
                                                             {"BOOL", TYPE_BOOL},
                                                             {"BYTES", TYPE_STRING}};
  return types.at(datatype);
}

void EncodeTensor(const TensorContract& tensor, ModelMetadataResponse::TensorMetadata* message) {
  message->set_name(std::string(tensor.name));
  message->set_datatype(std::string(tensor.datatype));
  message->mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
}

// Without the batch, which max_batch_size stands for.
template <typename Message>
void EncodeConfigTensor(const TensorContract& tensor, Message* message) {
  message->set_name(std::string(tensor.name));
  message->set_data_type(ConfigType(tensor.datatype));
  message->mutable_dims()->Add(tensor.shape.begin() + (tensor.has_batch ? 1 : 0),
                               tensor.shape.end());
}

}  // namespace

bool IsReady(const ModelStatus& model) {
  return model.state == ModelState::kReady || model.state == ModelState::kCold;
}

const char* StateName(const ModelStatus& model) {
  switch (model.state) {
    case ModelState::kReady:
    case ModelState::kCold:  // The first request loads it.
      return "READY";
    case ModelState::kLoading:
      return "LOADING";
    case ModelState::kUnloading:
      return "UNLOADING";
    case ModelState::kFailed:
      break;
  }
  return "UNAVAILABLE";
}

void EncodeMetadata(const ModelStatus& model, ModelMetadataResponse* message) {
  message->set_name(model.name);
  message->add_versions(kVersion);
  message->set_platform(kPlatform);
  for (const TensorContract& tensor : InputTensors()) EncodeTensor(tensor, message->add_inputs());
  for (const TensorContract& tensor : OutputTensors()) EncodeTensor(tensor, message->add_outputs());
  for (const auto& [name, value] : Properties(model))
    (*message->mutable_properties())[name] = value;
}

void EncodeConfig(const ModelStatus& model, int max_prompts, ModelConfig* message) {
  message->set_name(model.name);
  message->set_platform(kPlatform);
  message->set_backend("ess");
  message->mutable_version_policy()->mutable_specific()->add_versions(1);
  message->set_max_batch_size(max_prompts);
  for (const TensorContract& tensor : InputTensors()) {
    ModelInput* const input = message->add_input();
    EncodeConfigTensor(tensor, input);
    input->set_optional(tensor.optional);
  }
  for (const TensorContract& tensor : OutputTensors()) {
    EncodeConfigTensor(tensor, message->add_output());
  }
  // A stream may carry several answers to a request; clients that hear "decoupled" refuse
  // ModelInfer.
  message->mutable_model_transaction_policy()->set_decoupled(false);
  for (const auto& [name, value] : Properties(model)) {
    (*message->mutable_parameters())[name].set_string_value(value);
  }
}

void EncodeIndexEntry(const ModelStatus& model, RepositoryIndexResponse::ModelIndex* message) {
  message->set_name(model.name);
  message->set_version(kVersion);
  message->set_state(StateName(model));
  message->set_reason(model.state == ModelState::kCold && model.reason.empty()
                          ? "not in memory; the first request loads it"
                          : model.reason);
}

void EncodeMemoryUsage(const ModelStatus& model, ModelStatistics* message) {
  if (model.description == nullptr) return;
  const std::string& device = model.description->device;
  MemoryUsage* const usage = message->add_memory_usage();
  usage->set_type(absl::StartsWith(device, "cpu") ? "CPU" : "GPU");
  if (const size_t colon = device.find(':'); colon != device.npos) {
    usage->set_id(std::atoll(device.c_str() + colon + 1));
  }
  usage->set_byte_size(model.description->weight_bytes);
}

}  // namespace ess::inference
