#include "server/residency/folder_source.h"

#include <unistd.h>

#include <fstream>

#include "gmock/gmock.h"
#include "server/base/device_memory.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/status_matchers.h"

namespace ess::residency {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::_;

// About 64 MiB with random weights.
constexpr char kConfig[] = R"({"model_type": "llama", "vocab_size": 8192, "hidden_size": 512,
    "intermediate_size": 1024, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 8, "max_position_embeddings": 64})";

int64_t ResidentBytes() {
  int64_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

class FolderSourceTest : public ::testing::Test {
 protected:
  FolderSourceTest() { std::ofstream(folder_ / "config.json") << kConfig; }

  const std::filesystem::path folder_ =
      ess::testing::FreshFolder(::testing::TempDir(), "folder_source_test");
  const CatalogueEntry entry_{.name = "m", .folder = folder_, .options = {.random_init_seed = 1}};
  telemetry::Metrics metrics_;
};

TEST_F(FolderSourceTest, LoadsWhatItMeasured) {
  FolderSource source(metrics_, {});
  const auto needs = source.Measure(entry_);
  ASSERT_THAT(needs, IsOk());
  EXPECT_EQ(needs->device, "cpu");

  const auto loaded = source.Load(entry_, /*fresh=*/false);

  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->weights->bytes(), needs->bytes);
  EXPECT_EQ(loaded->from, Tier::kDisk);
}

TEST_F(FolderSourceTest, GivesMemoryBackToTheSystem) {
  constexpr int64_t kTolerance = int64_t{8} << 20;
  FolderSource source(metrics_, {});
  // The first load leaves what LibTorch allocates once.
  for (int i = 0; i < 2; ++i) {
    ASSERT_THAT(source.Load(entry_, /*fresh=*/false), IsOk());
    source.Reclaim("cpu");
  }
  const int64_t before = ResidentBytes();
  auto loaded = source.Load(entry_, /*fresh=*/false);
  ASSERT_THAT(loaded, IsOk());
  const int64_t bytes = loaded->weights->bytes();
  EXPECT_GT(bytes, int64_t{50} << 20);
  EXPECT_GT(ResidentBytes(), before + bytes - kTolerance);

  loaded->weights = nullptr;
  source.Reclaim("cpu");

  EXPECT_LT(ResidentBytes(), before + kTolerance);
}

TEST_F(FolderSourceTest, TheAutomaticBudgetOfTheCpuLeavesAMargin) {
  FolderSource source(metrics_, {});
  const auto memory = ReadDeviceMemory("cpu");
  ASSERT_THAT(memory, IsOk());
  EXPECT_GT(source.Budget("cpu"), 0);
  EXPECT_LT(source.Budget("cpu"), memory->total_bytes);
}

TEST_F(FolderSourceTest, RefusesADeviceThatIsNotThere) {
  FolderSource source(metrics_, {});
  CatalogueEntry entry = entry_;
  entry.options.device = "nonsense";
  EXPECT_THAT(source.Measure(entry), StatusIs(absl::StatusCode::kInvalidArgument, _));
}

}  // namespace
}  // namespace ess::residency
