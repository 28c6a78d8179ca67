#include "tests/benchmarks/svd_rival.h"

#include <utility>

#include "server/linalg/reference_linalg.h"
#include "server/linalg/serial_torch.h"
#include "tests/benchmarks/timing.h"

namespace ess::benchmarks {

std::vector<int64_t> EvenPositions(int64_t length, int64_t count) {
  count = std::min(count, length - 1);
  std::vector<int64_t> positions;
  for (int64_t k = 0; k < count; ++k) {
    positions.push_back(1 + (2 * k + 1) * (length - 1) / (2 * count));
  }
  return positions;
}

SvdRun RunSvd(std::span<const double> matrix, int64_t length, std::vector<int64_t> positions,
              WorkerPool& pool) {
  SvdRun run{.positions = std::move(positions)};
  run.sigma.resize(run.positions.size());
  const double start = Now();
  const absl::Status status = pool.ParallelFor(
      run.positions.size(),
      [&](int64_t k, int) {
        const linalg::SerialTorch serial;
        run.sigma[k] = ValueOrExit(linalg::BlockSingularValues(matrix, length, run.positions[k]));
      },
      CancellationToken());
  ExitUnlessOk(status);
  const double count = static_cast<double>(run.positions.size());
  run.seconds = (Now() - start) * static_cast<double>(length - 1) / count;
  run.extrapolated = static_cast<int64_t>(run.positions.size()) < length - 1;
  return run;
}

}  // namespace ess::benchmarks
