#include "server/checkpoint/weight_stamp.h"

#include <fstream>

#include "gtest/gtest.h"
#include "tests/support/safetensors_writer.h"

namespace ess::checkpoint {
namespace {

class WeightStampTest : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
  }
  const std::filesystem::path folder_ =
      ess::testing::FreshFolder(::testing::TempDir(), "weight_stamp_test");
};

TEST_F(WeightStampTest, StaysWhileNobodyTouchesTheWeights) {
  Write("model.safetensors", "one");
  const std::string before = WeightStamp(folder_);
  Write("README.md", "beside them");
  EXPECT_EQ(WeightStamp(folder_), before);
}

TEST_F(WeightStampTest, ChangesWhenAFileBecomesShorter) {
  Write("model.safetensors", "one");
  const std::string before = WeightStamp(folder_);
  std::filesystem::resize_file(folder_ / "model.safetensors", 1);
  EXPECT_NE(WeightStamp(folder_), before);
}

TEST_F(WeightStampTest, ChangesWhenAnotherFileTakesThePlaceOfOneOfEqualSize) {
  Write("model.safetensors", "one");
  Write("new", "two");
  const std::string before = WeightStamp(folder_);
  std::filesystem::rename(folder_ / "new", folder_ / "model.safetensors");
  EXPECT_NE(WeightStamp(folder_), before);
}

TEST_F(WeightStampTest, ChangesWhenAFileGoes) {
  Write("model.safetensors", "one");
  const std::string before = WeightStamp(folder_);
  std::filesystem::remove(folder_ / "model.safetensors");
  EXPECT_NE(WeightStamp(folder_), before);
  EXPECT_EQ(WeightStamp(folder_), "");
}

}  // namespace
}  // namespace ess::checkpoint
