// How fast the recurrent route is, on one thread, against forming T and the dense routes for the
// same request; and from which length on. One run, so the ratios mean something anywhere.
//
//   recurrent_benchmark              the table
//   recurrent_benchmark break-even   ratios at multiples of the number of states
#include <ATen/ATen.h>

#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/serial_torch.h"
#include "server/linalg/dense_spectra.h"
#include "server/operators/delta_recurrence.h"
#include "server/operators/diagonal_plus_rank_one.h"
#include "server/operators/diagonal_recurrence.h"
#include "server/operators/general_recurrence.h"
#include "tests/benchmarks/timing.h"

namespace ess {
namespace {

using ::ess::benchmarks::BestSeconds;
using ::ess::benchmarks::ExitUnlessOk;
using ::ess::benchmarks::ValueOrExit;
using linalg::SpectrumRequest;
using operators::SequenceOperator;

const CancellationToken kNever;
constexpr double kBudget = 0.1;

struct Measure {
  const char* name;
  SpectrumRequest request;
};

// `norm` is max_i sigma_1(H_i).
std::vector<Measure> Measures(double norm) {
  std::vector<double> taus;
  for (const double share : {1e-1, 1e-2, 1e-3, 1e-4, 1e-5}) taus.push_back(share * norm);
  return {{"1 tau", {.tolerances = {taus[2]}}},
          {"5 taus", {.tolerances = taus}},
          {"entropy", {.entropies = true}},
          {"fractions", {.fractions = {1e-1, 1e-2, 1e-3}, .spectral_norms = true}}};
}

std::unique_ptr<SequenceOperator> Make(std::string_view kind, int64_t N, int64_t L) {
  at::manual_seed(1);
  const auto normal = [](at::IntArrayRef shape) { return at::randn(shape, at::kDouble); };
  const auto gate = [&](at::IntArrayRef shape) { return at::sigmoid(normal(shape)).pow(1.0 / 16); };
  const at::Tensor b = normal({L, N});
  const at::Tensor c = normal({L, N}) / std::sqrt(N);
  const at::Tensor keys = b / b.norm(2, {1}, true);
  if (kind == "gla") return std::make_unique<operators::DiagonalRecurrence>(gate({L, N}), b, c);
  if (kind == "mamba2") return std::make_unique<operators::DiagonalRecurrence>(gate({L, 1}), b, c);
  if (kind == "complex") {
    const auto complex = [&](at::IntArrayRef shape) {
      return at::complex(normal(shape), normal(shape));
    };
    return std::make_unique<operators::DiagonalRecurrence>(
        at::polar(gate({L, N / 2}), normal({L, N / 2})), complex({L, N / 2}), complex({L, N / 2}));
  }
  if (kind == "delta") {
    return std::make_unique<operators::DeltaRecurrence>(gate({L}), at::sigmoid(normal({L})), keys,
                                                        c);
  }
  if (kind == "rank_one") {
    const at::Tensor removal = at::sigmoid(normal({L, N})) * keys;
    return std::make_unique<operators::DiagonalPlusRankOne>(gate({L, N}), -keys, removal, b, c);
  }
  const at::Tensor A = at::diag_embed(gate({L, N})) + 0.05 * normal({L, N, N}) / std::sqrt(N);
  return std::make_unique<operators::GeneralRecurrence>(A, b, c);
}

// Milliseconds of a request and, with `norm`, of the largest sigma_1, that the engine asks as well.
double Native(const SequenceOperator& op, const SpectrumRequest& request, bool norm) {
  return 1e3 * BestSeconds(
                   [&] {
                     const auto spectra = op.NativeSpectra(0);
                     if (norm)
                       ValueOrExit(spectra->MaxSpectralNorm(linalg::kNormMagnitude, kNever));
                     ValueOrExit(spectra->Compute(request, kNever));
                   },
                   kBudget);
}

double FormMatrix(const SequenceOperator& op, std::vector<double>& matrix) {
  matrix.resize(op.length() * op.length());
  return 1e3 * BestSeconds([&] { op.DenseHead(0, matrix); }, kBudget);
}

// T / `scale` is given, as Load leaves it.
double Dense(const SequenceOperator& op, std::vector<double>& matrix, double scale,
             SpectrumRequest request, bool norm) {
  for (double& tolerance : request.tolerances) tolerance /= scale;
  linalg::DenseSpectra dense;
  return 1e3 * BestSeconds(
                   [&] {
                     ExitUnlessOk(dense.Load(matrix, op.length(), op.symmetry(), kNever));
                     if (norm) ValueOrExit(dense.MaxSpectralNorm(linalg::kNormMagnitude, kNever));
                     ValueOrExit(dense.Compute(request, kNever));
                   },
                   kBudget);
}

void PrintRow(std::string_view kind, int64_t N, int64_t L, bool norm) {
  const auto op = Make(kind, N, L);
  std::vector<double> matrix;
  const double form = FormMatrix(*op, matrix);
  linalg::DenseSpectra dense_route;
  ExitUnlessOk(dense_route.Load(matrix, L, op->symmetry(), kNever));
  std::printf("%-9s %4ld %5ld %4s %8.2f", std::string(kind).c_str(), static_cast<long>(N),
              static_cast<long>(L), norm ? "yes" : "no", form);
  const double largest =
      ValueOrExit(op->NativeSpectra(0)->MaxSpectralNorm(linalg::kNormMagnitude, kNever));
  for (const Measure& measure : Measures(largest)) {
    const double native = Native(*op, measure.request, norm);
    const double dense = Dense(*op, matrix, dense_route.scale(), measure.request, norm);
    std::printf(" | %7.2f %8.2f %5.1f %5.1f", native, dense, (form + dense) / native,
                dense / native);
  }
  std::printf("\n");
  std::fflush(stdout);
}

void PrintHeader() {
  std::printf("ms; norm: with max_i sigma_1(H_i); ratios: with and without forming T\n");
  std::printf("%-9s %4s %5s %4s %8s", "class", "N", "L", "norm", "form T");
  for (const Measure& measure : Measures(1)) {
    std::printf(" | %7s %8s %5s %5s", measure.name, "dense", "x", "x-T");
  }
  std::printf("\n");
}

}  // namespace
}  // namespace ess

int main(int argc, char** argv) {
  const ess::SerialTorch serial;
  if (argc > 1 && std::string_view(argv[1]) == "break-even") {
    ess::PrintHeader();
    for (const char* kind : {"mamba2", "gla", "complex", "delta", "rank_one", "general"}) {
      for (const int64_t states : {16, 32, 64, 128}) {
        for (const int64_t multiple : {1, 2, 3, 4, 6, 8}) {
          ess::PrintRow(kind, states, multiple * states, true);
        }
      }
    }
    return 0;
  }
  struct Row {
    const char* kind;
    int64_t states;
    int64_t length;
  };
  ess::PrintHeader();
  for (const bool norm : {false, true}) {
    for (const auto& [kind, states, length] :
         {Row{"gla", 64, 1024}, Row{"mamba2", 128, 2048}, Row{"complex", 64, 1024},
          Row{"delta", 64, 1024}, Row{"delta", 64, 2048}, Row{"rank_one", 64, 1024},
          Row{"general", 64, 1024}}) {
      ess::PrintRow(kind, states, length, norm);
    }
  }
  return 0;
}
