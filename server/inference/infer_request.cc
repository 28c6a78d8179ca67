#include "server/inference/infer_request.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/cut_text.h"
#include "server/base/status_macros.h"
#include "server/inference/raw_tensor.h"
#include "server/inference/tensor_contract.h"

namespace ess::inference {
namespace {

using Input = ModelInferRequest::InferInputTensor;

// An input and where its elements are.
struct InputData {
  const Input* tensor = nullptr;
  const std::string* raw = nullptr;  // Null: they are typed.
  int64_t count = 0;                 // Of elements, by the shape.
};

// By name.
using Inputs = std::map<std::string, InputData, std::less<>>;

std::span<const int64_t> Shape(const Input& tensor) {
  return {tensor.shape().data(), static_cast<size_t>(tensor.shape_size())};
}

std::string Names(std::span<const TensorContract> tensors) {
  std::vector<std::string_view> names;
  for (const TensorContract& tensor : tensors) names.push_back(tensor.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

// Elements in all fields together.
int64_t TypedCount(const InferTensorContents& contents) {
  return int64_t{contents.bool_contents_size()} + contents.int_contents_size() +
         contents.int64_contents_size() + contents.uint_contents_size() +
         contents.uint64_contents_size() + contents.fp32_contents_size() +
         contents.fp64_contents_size() + contents.bytes_contents_size();
}

absl::Status CheckTyped(const std::string& name, const InputData& input, const char* field,
                        int64_t in_field) {
  const int64_t all = TypedCount(input.tensor->contents());
  if (in_field != all) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {} elements are in other fields than {}, which holds those of {}", name,
                    all - in_field, field, CutText(input.tensor->datatype(), 16)));
  }
  if (in_field != input.count) {
    return absl::InvalidArgumentError(fmt::format("{}: {} elements in {}; the shape {} has {}",
                                                  name, in_field, field,
                                                  ShapeText(Shape(*input.tensor)), input.count));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> Integers(const std::string& name, const InputData& input) {
  const std::string& datatype = input.tensor->datatype();
  if (input.raw != nullptr) return ReadIntegers(name, datatype, input.count, *input.raw);
  const InferTensorContents& contents = input.tensor->contents();
  if (datatype == "INT32") {
    ESS_RETURN_IF_ERROR(CheckTyped(name, input, "int_contents", contents.int_contents_size()));
    return std::vector<int64_t>(contents.int_contents().begin(), contents.int_contents().end());
  }
  if (datatype == "INT64") {
    ESS_RETURN_IF_ERROR(CheckTyped(name, input, "int64_contents", contents.int64_contents_size()));
    return std::vector<int64_t>(contents.int64_contents().begin(), contents.int64_contents().end());
  }
  return absl::InvalidArgumentError(fmt::format(
      "{}: the datatype is '{}'; INT32 or INT64 is expected", name, CutText(datatype, 16)));
}

// Refer to the request.
absl::StatusOr<std::vector<std::string_view>> Texts(const std::string& name,
                                                    const InputData& input) {
  if (input.tensor->datatype() != "BYTES") {
    return absl::InvalidArgumentError(fmt::format("{}: the datatype is '{}'; BYTES is expected",
                                                  name, CutText(input.tensor->datatype(), 16)));
  }
  if (input.raw != nullptr) return ReadBytes(name, input.count, *input.raw);
  const auto& contents = input.tensor->contents().bytes_contents();
  ESS_RETURN_IF_ERROR(CheckTyped(name, input, "bytes_contents", contents.size()));
  return std::vector<std::string_view>(contents.begin(), contents.end());
}

// All raw or all typed, known names, none twice, shapes of the right rank.
absl::StatusOr<Inputs> CollectInputs(const ModelInferRequest& request) {
  const int raw_count = request.raw_input_contents_size();
  Inputs inputs;
  for (int i = 0; i < request.inputs_size(); ++i) {
    const Input& tensor = request.inputs(i);
    const TensorContract* const known = FindTensor(InputTensors(), tensor.name());
    if (known == nullptr) {
      return absl::InvalidArgumentError(
          fmt::format("inputs[{}]: there is no input '{}'; there are {}", i, CutText(tensor.name()),
                      Names(InputTensors())));
    }
    InputData input{.tensor = &tensor};
    if (!inputs.emplace(tensor.name(), input).second) {
      return absl::InvalidArgumentError(
          fmt::format("inputs[{}]: {} is there twice", i, tensor.name()));
    }
    ESS_RETURN_IF_ERROR(RefuseParameters(tensor.name(), tensor.parameters()));
    if (tensor.shape_size() != std::ssize(known->shape)) {
      return absl::InvalidArgumentError(
          fmt::format("{}: the shape {} has {} dimensions; {} are expected", tensor.name(),
                      ShapeText(Shape(tensor)), tensor.shape_size(), known->shape.size()));
    }
    ESS_ASSIGN_OR_RETURN(inputs[tensor.name()].count, ElementCount(tensor.name(), Shape(tensor)));
    const bool typed = TypedCount(tensor.contents()) > 0;
    if (typed && raw_count > 0) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: the request has raw_input_contents and typed contents; send all inputs raw or all "
          "typed",
          tensor.name()));
    }
    if (!typed && raw_count == 0) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: there is no data: neither raw_input_contents nor contents", tensor.name()));
    }
    if (raw_count > i) inputs[tensor.name()].raw = &request.raw_input_contents(i);
  }
  if (raw_count > 0 && raw_count != request.inputs_size()) {
    return absl::InvalidArgumentError(
        fmt::format("raw_input_contents: {} entries for {} inputs; each input has one", raw_count,
                    request.inputs_size()));
  }
  return inputs;
}

absl::Status CheckPromptCount(const std::string& tensor, int64_t count,
                              const rpc::RequestLimits& limits) {
  if (count < 1) {
    return absl::InvalidArgumentError(
        fmt::format("{}: the shape begins with {} prompts; at least 1 is needed", tensor, count));
  }
  if (count <= limits.max_prompts) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}: {} prompts in one request; the limit is {} (max_prompts)", tensor, count,
                  limits.max_prompts));
}

absl::StatusOr<std::vector<PromptInput>> TokenPrompts(const Inputs& inputs,
                                                      const rpc::RequestLimits& limits) {
  const InputData& tokens = inputs.find(kTokens)->second;
  const int64_t count = tokens.tensor->shape(0);
  const int64_t length = tokens.tensor->shape(1);
  ESS_RETURN_IF_ERROR(CheckPromptCount(kTokens, count, limits));
  if (length < 1) {
    return absl::InvalidArgumentError(
        fmt::format("{}: prompts of {} tokens; at least 1 is needed", kTokens, length));
  }
  ESS_ASSIGN_OR_RETURN(const std::vector<int64_t> ids, Integers(kTokens, tokens));
  std::vector<int64_t> lengths(static_cast<size_t>(count), length);
  if (const auto given = inputs.find(kLengths); given != inputs.end()) {
    if (given->second.tensor->datatype() != "INT32") {
      return absl::InvalidArgumentError(fmt::format("{}: the datatype is '{}'; INT32 is expected",
                                                    kLengths,
                                                    CutText(given->second.tensor->datatype(), 16)));
    }
    if (given->second.count != count) {
      return absl::InvalidArgumentError(fmt::format("{}: {} lengths for the {} prompts of {}",
                                                    kLengths, given->second.count, count, kTokens));
    }
    ESS_ASSIGN_OR_RETURN(lengths, Integers(kLengths, given->second));
  }
  std::vector<PromptInput> prompts;
  for (int64_t p = 0; p < count; ++p) {
    if (lengths[p] < 1 || lengths[p] > length) {
      return absl::InvalidArgumentError(
          fmt::format("{}: {} at index {}; a prompt has 1 to {} tokens, the second size of {}",
                      kLengths, lengths[p], p, length, kTokens));
    }
    const auto begin = ids.begin() + p * length;
    prompts.push_back(
        {.id = std::to_string(p), .content = std::vector<int64_t>(begin, begin + lengths[p])});
  }
  return prompts;
}

absl::StatusOr<std::vector<PromptInput>> TextPrompts(const Inputs& inputs,
                                                     const rpc::RequestLimits& limits) {
  if (inputs.contains(kLengths)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: it goes with {}; texts have their own lengths", kLengths, kTokens));
  }
  const InputData& text = inputs.find(kText)->second;
  ESS_RETURN_IF_ERROR(CheckPromptCount(kText, text.count, limits));
  ESS_ASSIGN_OR_RETURN(const std::vector<std::string_view> texts, Texts(kText, text));
  std::vector<PromptInput> prompts;
  for (const std::string_view element : texts) {
    if (element.empty()) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: the text at index {} is empty; at least 1 token is needed", kText, prompts.size()));
    }
    prompts.push_back({.id = std::to_string(prompts.size()), .content = std::string(element)});
  }
  return prompts;
}

absl::StatusOr<std::vector<std::string>> WantedOutputs(const ModelInferRequest& request,
                                                       bool certify) {
  std::vector<std::string> wanted;
  for (const auto& output : request.outputs()) {
    const TensorContract* const known = FindTensor(OutputTensors(), output.name());
    if (known == nullptr) {
      return absl::InvalidArgumentError(
          fmt::format("outputs: there is no output '{}'; there are {}", CutText(output.name()),
                      Names(OutputTensors())));
    }
    if (std::find(wanted.begin(), wanted.end(), output.name()) != wanted.end()) {
      return absl::InvalidArgumentError(fmt::format("outputs: {} is there twice", output.name()));
    }
    ESS_RETURN_IF_ERROR(RefuseParameters(output.name(), output.parameters()));
    if (output.name() == kCertain && !certify) {
      return absl::InvalidArgumentError(
          fmt::format("outputs: {} is there with the parameter certify only", kCertain));
    }
    wanted.push_back(output.name());
  }
  if (!wanted.empty()) return wanted;
  for (const TensorContract& output : OutputTensors()) {
    if (output.name != kCertain || certify) wanted.emplace_back(output.name);
  }
  return wanted;
}

}  // namespace

absl::Status CheckVersion(const std::string& model, const std::string& version) {
  if (version.empty() || version == kVersion) return absl::OkStatus();
  return absl::NotFoundError(fmt::format("model_version: model '{}' has no version '{}'; it has {}",
                                         model, CutText(version, 32), kVersion));
}

absl::StatusOr<InferRequest> DecodeInferRequest(const ModelInferRequest& request,
                                                const rpc::RequestLimits& limits) {
  ESS_ASSIGN_OR_RETURN(InferParameters parameters, DecodeInferParameters(request.parameters()));
  ESS_ASSIGN_OR_RETURN(const Inputs inputs, CollectInputs(request));
  if (inputs.contains(kTokens) == inputs.contains(kText)) {
    return absl::InvalidArgumentError(fmt::format("inputs: {} of {} and {}; exactly one is needed",
                                                  inputs.contains(kText) ? "both" : "neither",
                                                  kTokens, kText));
  }
  InferRequest decoded;
  decoded.prompt_tensor = inputs.contains(kTokens) ? kTokens : kText;
  ProfileJob& job = decoded.job;
  job.model = request.model_name();
  ESS_ASSIGN_OR_RETURN(job.prompts, inputs.contains(kTokens) ? TokenPrompts(inputs, limits)
                                                             : TextPrompts(inputs, limits));
  ESS_ASSIGN_OR_RETURN(decoded.outputs, WantedOutputs(request, parameters.options.certify));
  job.measures =
      parameters.measures.empty() ? limits.default_measures : std::move(parameters.measures);
  job.options = parameters.options;
  job.layers = std::move(parameters.layers);
  job.heads = std::move(parameters.heads);
  job.positions = std::move(parameters.positions);
  job.add_special_tokens = parameters.add_special_tokens;
  decoded.priority = parameters.priority;
  decoded.longest_wait = parameters.longest_wait;
  return decoded;
}

}  // namespace ess::inference
