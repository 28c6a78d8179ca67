// What the residency needs of every architecture: that it is known beforehand what a load takes,
// and that a model can be built again from weights that were kept on the host.
#include <ATen/ATen.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/cancellation.h"
#include "server/models/architectures.h"
#include "server/models/host_weights.h"
#include "server/models/model_loader.h"
#include "server/tokenization/tokenizer.h"
#include "tests/support/random_tensors.h"
#include "tests/support/recording_sink.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/status_matchers.h"

namespace ess::models {
namespace {

using ess::testing::IsOk;
using ess::testing::RandomTensors;
using ess::testing::RecordingSink;
using ess::testing::TensorToWrite;

class LoadingContractTest : public ::testing::TestWithParam<Architecture> {
 protected:
  void SetUp() override {
    std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::replace(name.begin(), name.end(), '/', '_');
    folder_ = ess::testing::FreshFolder(::testing::TempDir(), "loading_contract_" + name);
    const nlohmann::json config = GetParam().tiny_config();
    std::ofstream(folder_ / "config.json") << config.dump();
    ASSERT_THAT(GetParam().create(ConfigReader(config), weights_, "cpu"), IsOk());
    WriteWeights(at::kFloat, "F32");
  }

  void TearDown() override { std::filesystem::remove_all(folder_); }

  void WriteWeights(at::ScalarType type, const std::string& dtype) {
    std::map<std::string, TensorToWrite> tensors;
    for (const auto& [name, tensor] : weights_.taken()) {
      const at::Tensor stored = tensor.to(type);
      tensors[name] = {dtype,
                       stored.sizes().vec(),
                       {static_cast<const char*>(stored.const_data_ptr()), stored.nbytes()}};
    }
    ess::testing::WriteSafetensors(folder_ / "model.safetensors", tensors);
  }

  int64_t LoadedBytes(const LoadOptions& options) const {
    const auto loaded = LoadModelFolder(folder_, options);
    EXPECT_THAT(loaded, IsOk());
    return loaded.ok() ? loaded->model->description().weight_bytes : -1;
  }

  int64_t MeasuredBytes(const LoadOptions& options) const {
    const auto bytes = MeasureModelFolder(folder_, options);
    EXPECT_THAT(bytes, IsOk());
    return bytes.value_or(-1);
  }

  RandomTensors weights_{/*seed=*/11};
  std::filesystem::path folder_;
};

TEST_P(LoadingContractTest, ItIsKnownWhatALoadTakesBeforeAnythingIsRead) {
  const LoadOptions float32{.device = "cpu"}, as_stored{.device = "cpu", .as_stored = true},
      random{.device = "cpu", .random_init_seed = 1};
  EXPECT_EQ(MeasuredBytes(float32), LoadedBytes(float32));
  EXPECT_EQ(MeasuredBytes(random), LoadedBytes(random));

  WriteWeights(at::kBFloat16, "BF16");
  EXPECT_EQ(MeasuredBytes(as_stored), LoadedBytes(as_stored));
  // The largest tensor is in memory in both types for a moment.
  EXPECT_GT(MeasuredBytes(float32), LoadedBytes(float32));
}

TEST_P(LoadingContractTest, WeightsThatAreKeptOnTheHostGiveTheModelWithoutItsFiles) {
  HostWeights kept;
  const LoadOptions options{.device = "cpu", .host_weights = &kept};
  const auto first = LoadModelFolder(folder_, options);
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(kept.totals.bytes, first->model->description().weight_bytes);
  std::filesystem::remove(folder_ / "model.safetensors");

  const auto again = LoadModelFolder(folder_, options);

  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->model->description().weight_bytes, kept.totals.bytes);
  const std::vector<std::vector<int64_t>> prompts = {{3, 1, 4, 1, 5}};
  RecordingSink sink, sink_again;
  std::vector<at::Tensor> logits, logits_again;
  ASSERT_THAT(first->model->Forward(prompts, sink, CancellationToken(), &logits), IsOk());
  ASSERT_THAT(again->model->Forward(prompts, sink_again, CancellationToken(), &logits_again),
              IsOk());
  EXPECT_TRUE(at::equal(logits[0], logits_again[0]));
}

INSTANTIATE_TEST_SUITE_P(Architectures, LoadingContractTest,
                         ::testing::ValuesIn(Architectures().begin(), Architectures().end()),
                         [](const auto& info) { return info.param.model_type; });

}  // namespace
}  // namespace ess::models
