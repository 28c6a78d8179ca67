// The recursion of the inertia tree, dispatched to the best instruction set of the machine.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "server/base/cancellation.h"
#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

// Doubles of scratch that RunTree and ComputeRootGrams need for this root.
int64_t TreeScratch(const TreeNode& root);
// The same for any root of this width, whether its A and C are multiples of the identity or not.
int64_t TreeScratch(int64_t width);

// Fills columns = B21^T B21 and rows = B21 B21^T for the root's halves (lower triangles, whole 8 x
// 8 blocks). Each is square with StrideFor(its width). Without `rows`, only the columns.
absl::Status ComputeRootGrams(const TreeNode& root, double* columns, double* rows, Arena& arena,
                              const CancellationToken& cancellation);

// sums[i] = root.pivot_sum + the sum over the pivots of M_i, for each wanted position i of the
// root, counted from its first: how many are negative, or the logarithm of |det M_i|. REQUIRES:
// sums.size() == problem.root.width.
absl::StatusOr<TreeResult> RunTree(const TreeProblem& problem, std::span<double> sums, Arena& arena,
                                   const CancellationToken& cancellation);

}  // namespace ess::linalg
