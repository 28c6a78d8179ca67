// A sink that keeps a copy of every operator.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "server/operators/operator_sink.h"
#include "server/operators/sequence_operator.h"

namespace ess::testing {

class RecordingSink final : public operators::OperatorSink {
 public:
  // Of one head of one mixer for one prompt: T as float64, row-major [L, L].
  struct HeadKey {
    int64_t mixer, prompt, head;
    friend auto operator<=>(const HeadKey&, const HeadKey&) = default;
  };

  bool Wants(int64_t mixer) const override { return wants == nullptr || wants(mixer); }

  absl::Status Accept(const operators::OperatorKey& key,
                      const operators::SequenceOperator& op) override {
    calls.push_back(key);
    classes.emplace_back(op.class_name());
    state_sizes.push_back(op.state_size());
    feature_epsilons.push_back(op.feature_epsilon());
    for (int64_t head = 0; head < op.head_count(); ++head) {
      std::vector<double>& dense = heads[{key.mixer, key.prompt, key.first_head + head}];
      dense.resize(static_cast<size_t>(op.length() * op.length()));
      op.DenseHead(head, dense);
    }
    return on_accept == nullptr ? absl::OkStatus() : on_accept(key);
  }

  std::function<bool(int64_t mixer)> wants;
  std::function<absl::Status(const operators::OperatorKey&)> on_accept;

  std::vector<operators::OperatorKey> calls;
  std::vector<std::string> classes;               // Of each call.
  std::vector<operators::StateSize> state_sizes;  // Of each call.
  std::vector<double> feature_epsilons;           // Of each call.
  std::map<HeadKey, std::vector<double>> heads;
};

}  // namespace ess::testing
