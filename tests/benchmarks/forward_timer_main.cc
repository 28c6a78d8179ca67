// Times forward passes on demand, so that forward_benchmark.py can take turns with transformers.
//
//   forward_timer MODEL_FOLDER LENGTH THREADS
//
// For each line of standard input, "operators" or "logits", runs one prompt of LENGTH tokens and
// prints the seconds it took. Both hand every operator to a sink; "logits" also computes logits.
#include <ATen/Parallel.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "server/base/cancellation.h"
#include "server/models/model_loader.h"
#include "server/models/sequence_model.h"
#include "server/operators/operator_sink.h"
#include "server/tokenization/tokenizer.h"

namespace {

class DiscardingSink final : public ess::operators::OperatorSink {
 public:
  bool Wants(int64_t) const override { return true; }
  absl::Status Accept(const ess::operators::OperatorKey&,
                      const ess::operators::SequenceOperator&) override {
    return absl::OkStatus();
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: forward_timer MODEL_FOLDER LENGTH THREADS\n";
    return 2;
  }
  at::set_num_threads(std::atoi(argv[3]));
  const auto loaded = ess::models::LoadModelFolder(argv[1], {});
  if (!loaded.ok()) {
    std::cerr << loaded.status() << "\n";
    return 1;
  }
  const ess::models::SequenceModel& model = *loaded->model;
  std::vector<std::vector<int64_t>> prompts(1);
  for (int64_t i = 0; i < std::atoi(argv[2]); ++i) {
    prompts[0].push_back(i * 7919 % model.description().vocabulary_size);
  }

  for (std::string line; std::getline(std::cin, line);) {
    DiscardingSink sink;
    std::vector<at::Tensor> logits;
    const auto start = std::chrono::steady_clock::now();
    const absl::Status status = model.Forward(prompts, sink, ess::CancellationToken(),
                                              line == "logits" ? &logits : nullptr);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (!status.ok()) {
      std::cerr << status << "\n";
      return 1;
    }
    std::cout << seconds.count() << std::endl;
  }
  return 0;
}
