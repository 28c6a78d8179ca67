// Runs prompts through a model and writes what parity tests compare: logits, operators, ESS.
//
//   capture_model MODEL_FOLDER PROMPTS OUT [--threads=N] [--measure=SPEC ...]
//
// PROMPTS has a JSON list of token ids per line; all lines are one batch. Or it has one object
// {"count": 2, "length": 9, "seed": 0}: Gaussian prompts. OUT is safetensors, float32:
//   prompt.P.logits [L, V], prompt.P.NAME.operator [H, L, L], prompt.P.NAME.SPEC [H, L],
//   prompt.P.embeddings [L, D] of Gaussian prompts,
// where NAME is the mixer's name and SPEC a measure as it was given.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "server/base/cancellation.h"
#include "server/base/status_macros.h"
#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/models/model_loader.h"
#include "server/models/sequence_model.h"
#include "server/operators/sequence_operator.h"
#include "server/tokenization/tokenizer.h"
#include "tests/support/safetensors_writer.h"

namespace ess::testing {
namespace {

struct Arguments {
  std::string model_folder, prompts, out;
  int threads = 1;
  std::vector<std::string> measures;
};

absl::StatusOr<Arguments> ParseArguments(int argc, char** argv) {
  Arguments arguments;
  std::vector<std::string> files;
  for (const std::string& argument : std::vector<std::string>(argv + 1, argv + argc)) {
    if (argument.starts_with("--threads=")) {
      arguments.threads = std::atoi(argument.c_str() + sizeof("--threads=") - 1);
    } else if (argument.starts_with("--measure=")) {
      arguments.measures.push_back(argument.substr(sizeof("--measure=") - 1));
    } else {
      files.push_back(argument);
    }
  }
  if (files.size() != 3 || arguments.threads < 1) {
    return absl::InvalidArgumentError(
        "usage: capture_model MODEL_FOLDER PROMPTS OUT [--threads=N] [--measure=SPEC ...]");
  }
  arguments.model_folder = files[0];
  arguments.prompts = files[1];
  arguments.out = files[2];
  return arguments;
}

struct Prompts {
  std::vector<std::vector<int64_t>> token_ids;
  std::optional<models::GaussianPrompts> gaussian;  // Instead.
};

Prompts ReadPrompts(const std::string& path) {
  Prompts prompts;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json prompt = nlohmann::json::parse(line);
    if (prompt.is_object()) {
      prompts.gaussian = {
          .count = prompt.at("count"), .length = prompt.at("length"), .seed = prompt.at("seed")};
    } else {
      prompts.token_ids.push_back(prompt.get<std::vector<int64_t>>());
    }
  }
  return prompts;
}

// Collects every operator and its ESS as tensors to write.
class CaptureSink final : public operators::OperatorSink {
 public:
  CaptureSink(const models::ModelDescription& description, const EssEngine& engine,
              const Arguments& arguments)
      : description_(description), engine_(engine), arguments_(arguments) {}

  bool Wants(int64_t) const override { return true; }

  absl::Status Accept(const operators::OperatorKey& key,
                      const operators::SequenceOperator& op) override {
    const models::Mixer& mixer = description_.mixers[static_cast<size_t>(key.mixer)];
    const std::string prefix = fmt::format("prompt.{}.{}.", key.prompt, mixer.name);
    const int64_t length = op.length();
    std::vector<double> dense(static_cast<size_t>(length * length));
    for (int64_t head = 0; head < op.head_count(); ++head) {
      op.DenseHead(head, dense);
      Append(prefix + "operator", {mixer.head_count, length, length},
             std::vector<float>(dense.begin(), dense.end()));
    }

    std::vector<Measure> measures;
    for (const std::string& text : arguments_.measures) {
      ESS_ASSIGN_OR_RETURN(const Measure measure, ParseMeasure(text));
      measures.push_back(measure);
    }
    if (measures.empty()) return absl::OkStatus();
    std::vector<int64_t> heads(static_cast<size_t>(op.head_count()));
    std::vector<int64_t> positions(static_cast<size_t>(length));
    std::iota(heads.begin(), heads.end(), 0);
    std::iota(positions.begin(), positions.end(), 0);
    ESS_ASSIGN_OR_RETURN(const OperatorEss ess,
                         engine_.Compute(op, heads, positions, measures, {}, CancellationToken()));
    for (size_t m = 0; m < measures.size(); ++m) {
      Append(prefix + arguments_.measures[m], {mixer.head_count, length}, ess.values[m]);
    }
    return absl::OkStatus();
  }

  // Adds rows to a tensor whose whole shape is known.
  void Append(const std::string& name, std::vector<int64_t> shape,
              const std::vector<float>& values) {
    TensorToWrite& tensor = tensors_[name];
    tensor.shape = std::move(shape);
    tensor.bytes.append(reinterpret_cast<const char*>(values.data()),
                        values.size() * sizeof(float));
  }

  const std::map<std::string, TensorToWrite>& tensors() const { return tensors_; }

 private:
  const models::ModelDescription& description_;
  const EssEngine& engine_;
  const Arguments& arguments_;
  std::map<std::string, TensorToWrite> tensors_;
};

absl::Status Run(int argc, char** argv) {
  ESS_ASSIGN_OR_RETURN(const Arguments arguments, ParseArguments(argc, argv));
  at::set_num_threads(arguments.threads);
  ESS_ASSIGN_OR_RETURN(const models::LoadedModel loaded,
                       models::LoadModelFolder(arguments.model_folder, {}));
  WorkerPool pool(arguments.threads);
  const EssEngine engine(pool);
  CaptureSink sink(loaded.model->description(), engine, arguments);
  std::vector<at::Tensor> logits;
  const models::SequenceModel& model = *loaded.model;
  const Prompts prompts = ReadPrompts(arguments.prompts);
  ESS_RETURN_IF_ERROR(
      prompts.gaussian
          ? model.ForwardGaussian(*prompts.gaussian, sink, CancellationToken(), &logits)
          : model.Forward(prompts.token_ids, sink, CancellationToken(), &logits));
  const auto append = [&sink](const std::string& name, const at::Tensor& tensor) {
    const at::Tensor values = tensor.contiguous();
    const float* const data = values.const_data_ptr<float>();
    sink.Append(name, values.sizes().vec(), std::vector<float>(data, data + values.numel()));
  };
  for (size_t prompt = 0; prompt < logits.size(); ++prompt) {
    append(fmt::format("prompt.{}.logits", prompt), logits[prompt]);
    if (!prompts.gaussian) continue;
    append(fmt::format("prompt.{}.embeddings", prompt),
           models::GaussianEmbeddings(*prompts.gaussian, static_cast<int64_t>(prompt),
                                      model.description().hidden_size));
  }
  WriteSafetensors(arguments.out, sink.tensors());
  return absl::OkStatus();
}

}  // namespace
}  // namespace ess::testing

int main(int argc, char** argv) {
  const absl::Status status = ess::testing::Run(argc, argv);
  if (status.ok()) return 0;
  fmt::print(stderr, "capture_model: {}\n", status.ToString());
  return 1;
}
