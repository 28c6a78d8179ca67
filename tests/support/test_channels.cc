#include "tests/support/test_channels.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

namespace ess::testing {
namespace {

double Softplus(double x) { return std::log1p(std::exp(x)); }

// What a Mamba layer computes its gates and inputs from.
struct ScanParameters {
  std::vector<double> steps;    // [L, D]
  std::vector<double> rates;    // [N, D]
  std::vector<double> inputs;   // B [L, N]
  std::vector<double> outputs;  // C [L, N]
};

ScanParameters MakeParameters(const std::string& kind, int64_t length, int64_t states,
                              int64_t channels, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform(0, 1);
  ScanParameters scan{.steps = std::vector<double>(length * channels),
                      .rates = std::vector<double>(states * channels),
                      .inputs = std::vector<double>(length * states),
                      .outputs = std::vector<double>(length * states)};
  for (double& x : scan.inputs) x = normal(generator);
  for (double& x : scan.outputs) x = normal(generator);
  for (int64_t s = 0; s < states; ++s) {
    for (int64_t d = 0; d < channels; ++d) {
      scan.rates[s * channels + d] = kind == "rand" ? std::pow(16, uniform(generator)) : s + 1.0;
    }
  }
  for (int64_t d = 0; d < channels; ++d) {
    const double level = 1e-3 * std::pow(100, uniform(generator));
    for (int64_t t = 0; t < length; ++t) {
      double step = Softplus(normal(generator) - 4);
      if (kind == "trained" || kind == "rand") {
        step = Softplus(std::log(std::expm1(level)) + 0.7 * normal(generator));
      } else if (kind == "fast") {
        step = Softplus(normal(generator) + 1);
      } else if (kind == "mixed" && uniform(generator) < 0.02) {
        step = 20;
      }
      scan.steps[t * channels + d] = step;
    }
  }
  return scan;
}

StoredChannels FromParameters(const ScanParameters& scan, int64_t length, int64_t states,
                              int64_t channels, bool reads_before) {
  StoredChannels result(length, states, channels, reads_before);
  for (int64_t t = 0; t < length; ++t) {
    for (int64_t s = 0; s < states; ++s) {
      for (int64_t d = 0; d < channels; ++d) {
        const double step = scan.steps[t * channels + d];
        result.a(t, s, d) = std::exp(-step * scan.rates[s * channels + d]);
        result.b(t, s, d) = step * scan.inputs[t * states + s];
        result.c(t, s, d) = scan.outputs[t * states + s];
      }
    }
  }
  return result;
}

using Change = std::function<void(ScanParameters&)>;

}  // namespace

StoredChannels::StoredChannels(int64_t length, int64_t states, int64_t channels, bool reads_before)
    : length_(length),
      states_(states),
      channels_(channels),
      reads_before_(reads_before),
      a_(length * states * channels, 1.0),
      b_(length * states * channels, 0.0),
      c_(length * states * channels, 0.0) {}

void StoredChannels::FillLanes(int64_t channel, int64_t lanes, int64_t first, int64_t count,
                               double* a, double* b, double* c) const {
  const int64_t present = std::clamp<int64_t>(channels_ - channel, 0, lanes);
  for (int64_t row = 0; row < count * states_; ++row, a += lanes, b += lanes, c += lanes) {
    const int64_t position = first + row / states_;
    const int64_t filled = position < length_ ? present : 0;
    const int64_t from = Index(position, row % states_, channel);
    for (int64_t lane = 0; lane < filled; ++lane) {
      a[lane] = a_[from + lane];
      b[lane] = b_[from + lane];
      c[lane] = c_[from + lane];
    }
    std::fill(a + filled, a + lanes, 1.0);
    std::fill(b + filled, b + lanes, 0.0);
    std::fill(c + filled, c + lanes, 0.0);
  }
}

std::vector<double> StoredChannels::Dense(int64_t channel) const {
  std::vector<double> dense(length_ * length_, 0.0);
  std::vector<double> state(states_);
  for (int64_t j = 0; j < length_; ++j) {
    for (int64_t s = 0; s < states_; ++s) state[s] = b_[Index(j, s, channel)];
    for (int64_t i = reads_before_ ? j + 1 : j; i < length_; ++i) {
      double sum = 0;
      for (int64_t s = 0; s < states_; ++s) {
        const double before = state[s];
        if (i > j) state[s] *= a_[Index(i, s, channel)];
        sum += c_[Index(i, s, channel)] * (reads_before_ ? before : state[s]);
      }
      dense[i * length_ + j] = sum;
    }
  }
  return dense;
}

std::vector<std::string> ScanKinds() { return {"init", "trained", "rand", "fast", "mixed"}; }

StoredChannels MakeScan(const std::string& kind, int64_t length, int64_t states, int64_t channels,
                        uint64_t seed, bool reads_before) {
  return FromParameters(MakeParameters(kind, length, states, channels, seed), length, states,
                        channels, reads_before);
}

std::vector<HostileScan> HostileScans(int64_t length, int64_t states, int64_t channels,
                                      bool reads_before) {
  std::vector<HostileScan> scans;
  const auto add = [&](const std::string& name, const Change& change) {
    ScanParameters scan = MakeParameters("trained", length, states, channels, 11 + scans.size());
    change(scan);
    scans.push_back({name, FromParameters(scan, length, states, channels, reads_before)});
  };
  const auto scale = [](std::vector<double>& numbers, double factor) {
    for (double& x : numbers) x *= factor;
  };
  add("steps of zero", [&](ScanParameters& scan) {
    for (int64_t t = 0; t < length; ++t) {
      for (int64_t d = 0; d < channels; ++d) {
        const bool still = d == 0 || t % 3 == 0 || (t > length / 3 && t < length / 2);
        if (still) scan.steps[t * channels + d] = 0;
      }
    }
  });
  add("resets", [&](ScanParameters& scan) {
    for (int64_t t = 0; t < length; ++t) {
      for (int64_t d = 0; d < channels; ++d) {
        if (t % (5 + d) == 0) scan.steps[t * channels + d] = 50 * std::pow(20, d / 7.0);
      }
    }
  });
  add("silent rows", [&](ScanParameters& scan) {
    for (int64_t t = 0; t < length; ++t) {
      for (int64_t s = 0; s < states; ++s) {
        if (t % 4 == 0 || t < length / 6) scan.inputs[t * states + s] = 0;
        if (t % 5 == 0 || t > length - length / 5) scan.outputs[t * states + s] = 0;
      }
    }
  });
  add("equal rates",
      [&](ScanParameters& scan) { std::fill(scan.rates.begin(), scan.rates.end(), 1.0); });
  add("copies", [&](ScanParameters& scan) {
    std::fill(scan.rates.begin(), scan.rates.end(), 0.0);
    std::fill(scan.steps.begin(), scan.steps.end(), 1.0);
    for (int64_t t = 0; t < length; ++t) {
      for (int64_t s = 0; s < states; ++s) {
        scan.inputs[t * states + s] = s == t % states;
        scan.outputs[t * states + s] = s == 7 * t % states;
      }
    }
  });
  add("huge", [&](ScanParameters& scan) { scale(scan.inputs, 1e100); });
  add("huge and tiny", [&](ScanParameters& scan) {
    scale(scan.inputs, 1e150);
    scale(scan.outputs, 1e-150);
  });
  add("tiny", [&](ScanParameters& scan) {
    scale(scan.inputs, 1e-80);
    scale(scan.outputs, 1e-70);
  });
  add("no decay", [&](ScanParameters& scan) { scale(scan.rates, 1e-6); });
  add("rank one", [&](ScanParameters& scan) {
    std::fill(scan.inputs.begin(), scan.inputs.end(), 1.0);
    std::fill(scan.outputs.begin(), scan.outputs.end(), 1.0);
    std::fill(scan.rates.begin(), scan.rates.end(), 1.0);
  });
  add("rank two", [&](ScanParameters& scan) {
    std::fill(scan.inputs.begin(), scan.inputs.end(), 1.0);
    for (int64_t i = 0; i < states * channels; ++i) scan.rates[i] = i / channels % 2 == 0 ? 1 : 3;
  });
  add("wiped out states", [&](ScanParameters& scan) {
    for (int64_t s = 0; s < states; ++s) {
      for (int64_t d = 0; d < channels; ++d) {
        scan.rates[s * channels + d] = s % 2 == 1 ? 1e6 : 0.1 * static_cast<double>(s);
      }
    }
  });
  add("nothing", [&](ScanParameters& scan) { scale(scan.inputs, 0); });
  return scans;
}

}  // namespace ess::testing
