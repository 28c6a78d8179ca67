#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include "server/linalg/inertia_tree.h"
#include "server/linalg/tensor_tree.h"
#include "tests/support/test_operators.h"
using namespace ess; using namespace ess::linalg;
double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
int main(int argc, char** argv) {
  const int64_t L = atoi(argv[1]), H = atoi(argv[2]), chunk = atoi(argv[3]);
  at::set_num_threads(argc > 4 ? atoi(argv[4]) : 1);
  c10::InferenceMode guard;
  std::vector<double> m = testing::MakeTestOperator("attention_g1", L);
  for (double& x : m) x /= 16;
  CancellationToken never;
  InertiaTree tree;
  double host = 1e9;
  for (int r = 0; r < 5; ++r) { double s = Now(); (void)tree.Load(m, L, never); (void)tree.CountAbove(1e-3, 1, never); host = std::min(host, Now() - s); }
  at::Tensor maps = at::from_blob(m.data(), {1, L, L}, at::kDouble).tril(-1).expand({H, L, L}).contiguous();
  double best = 1e9;
  for (int r = 0; r < 3; ++r) {
    double s = Now();
    for (int64_t h = 0; h < H; h += chunk) {
      TensorTree t(maps.slice(0, h, h + chunk));
      const int64_t n = std::min(chunk, H - h);
      TensorTreeSums res;
      auto tau = at::full({n, 1}, 1e-3, at::kDouble);
      (void)t.Run({tau, tau}, PivotSum::kNegative, never, res);
    }
    best = std::min(best, Now() - s);
  }
  printf("L %ld H %ld chunk %ld: host %.2f ms/head, tensor %.2f ms/head, ratio %.2f\n", L, H, chunk, host * 1e3, best / H * 1e3, best / H / host);
}
