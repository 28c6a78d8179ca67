#include "server/linalg/reference_linalg.h"

#include <ATen/ATen.h>

#include "server/base/log.h"
#include "server/base/serial_torch.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"

namespace ess::linalg {

absl::StatusOr<std::vector<double>> BlockSingularValues(std::span<const double> matrix,
                                                        int64_t length, int64_t position) {
  return BlockSingularValues(matrix, length, position, length - position);
}

absl::StatusOr<std::vector<double>> BlockSingularValues(std::span<const double> matrix,
                                                        int64_t length, int64_t position,
                                                        int64_t rows) {
  ESS_CHECK(static_cast<int64_t>(matrix.size()) == length * length);
  ESS_CHECK(position >= 0 && position <= length);
  ESS_CHECK(rows >= 0 && rows <= length - position);
  if (position == 0 || rows == 0) return std::vector<double>();

  const SerialTorch serial;
  std::vector<double> values;
  ESS_RETURN_IF_ERROR(CatchTorch("singular values of a block", [&] {
    const at::Tensor block =
        at::from_blob(const_cast<double*>(matrix.data()) + position * length, {rows, position},
                      {length, 1}, at::kDouble)
            .contiguous();  // A fresh aligned copy, so that the same block gives the same bits.
    const at::Tensor sigma = at::linalg_svdvals(block);
    values.assign(sigma.const_data_ptr<double>(), sigma.const_data_ptr<double>() + sigma.numel());
    return absl::OkStatus();
  }));
  return values;
}

}  // namespace ess::linalg
