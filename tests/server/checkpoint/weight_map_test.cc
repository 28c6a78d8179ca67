#include "server/checkpoint/weight_map.h"

#include <ATen/ATen.h>

#include "gmock/gmock.h"
#include "server/checkpoint/weight_digest.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/status_matchers.h"

namespace ess::checkpoint {
namespace {

using ::ess::testing::Float32Tensor;
using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::ess::testing::WriteSafetensors;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

class WeightMapTest : public ::testing::Test {
 protected:
  auto Open(bool as_stored = false) { return WeightMap::Open(folder_, "cpu", as_stored); }

  void WriteIndex(const std::string& text) {
    std::ofstream(folder_ / "model.safetensors.index.json") << text;
  }

  const std::filesystem::path folder_ =
      ::ess::testing::FreshFolder(::testing::TempDir(), "weight_map_test");
};

TEST_F(WeightMapTest, GivesTheValuesOfASingleFile) {
  WriteSafetensors(folder_ / "model.safetensors", {{"w", Float32Tensor({1, 2}, {1.5, -2})}});
  auto weights = Open();
  ASSERT_THAT(weights, IsOk());

  const auto tensor = weights->Take("w", {1, 2});

  ASSERT_THAT(tensor, IsOk());
  EXPECT_TRUE(at::equal(*tensor, at::tensor({1.5f, -2.0f}).reshape({1, 2})));
  EXPECT_THAT(weights->CheckAllTaken(), IsOk());
  EXPECT_EQ(weights->bytes(), 8);
  EXPECT_EQ(weights->parameters(), 2);
}

TEST_F(WeightMapTest, ReadsConsolidatedWeightsWhenThereAreNoOthers) {
  WriteSafetensors(folder_ / "consolidated.safetensors", {{"w", Float32Tensor({1}, {1})}});
  EXPECT_THAT(Open()->Take("w", {1}), IsOk());

  WriteSafetensors(folder_ / "model.safetensors", {{"v", Float32Tensor({1}, {1})}});
  EXPECT_FALSE(Open()->Has("w"));
}

TEST_F(WeightMapTest, IgnoresNamesByTheirStart) {
  WriteSafetensors(folder_ / "model.safetensors", {{"layers.1.w", Float32Tensor({1}, {1})},
                                                   {"layers.11.w", Float32Tensor({1}, {2})}});
  auto weights = Open();
  ASSERT_THAT(weights, IsOk());

  weights->IgnorePrefix("layers.1.");

  EXPECT_FALSE(weights->Has("layers.1.w"));
  EXPECT_TRUE(weights->Has("layers.11.w"));
}

TEST_F(WeightMapTest, OutlivesItsFile) {
  WriteSafetensors(folder_ / "model.safetensors", {{"w", Float32Tensor({2}, {1, 2})}});
  at::Tensor tensor;
  {
    auto weights = Open();
    tensor = *weights->Take("w", {2});
  }
  std::filesystem::remove(folder_ / "model.safetensors");
  EXPECT_TRUE(at::equal(tensor, at::tensor({1.0f, 2.0f})));
}

TEST_F(WeightMapTest, ConvertsHalfPrecisionToFloat32UnlessAskedNotTo) {
  const at::Tensor half = at::tensor({0.5f, 3.0f}).to(at::kBFloat16);
  WriteSafetensors(folder_ / "model.safetensors",
                   {{"w", {"BF16", {2}, {static_cast<const char*>(half.data_ptr()), 4}}}});

  auto converted = Open();
  EXPECT_EQ(converted->Take("w", {2})->scalar_type(), at::kFloat);
  EXPECT_EQ(converted->dtype(), "float32");
  auto stored = Open(/*as_stored=*/true);
  EXPECT_EQ(stored->Take("w", {2})->scalar_type(), at::kBFloat16);
  EXPECT_EQ(stored->dtype(), "bfloat16");
}

TEST_F(WeightMapTest, ReadsEveryFloatingPointTypeAsFloat32) {
  const at::Tensor values = at::tensor({0.5f, -3.0f});
  const std::vector<std::pair<std::string, at::ScalarType>> types = {
      {"F16", at::kHalf}, {"BF16", at::kBFloat16}, {"F32", at::kFloat}, {"F64", at::kDouble}};
  for (const auto& [name, type] : types) {
    const at::Tensor stored = values.to(type);
    const std::string bytes(static_cast<const char*>(stored.data_ptr()), stored.nbytes());
    WriteSafetensors(folder_ / "model.safetensors", {{"w", {name, {2}, bytes}}});
    auto weights = Open();
    ASSERT_THAT(weights, IsOk()) << name;
    EXPECT_TRUE(at::equal(*weights->Take("w", {2}), values)) << name;
  }
}

TEST_F(WeightMapTest, ReadsTensorsAtOddOffsets) {
  const std::vector<float> values = {1, 2};
  WriteSafetensors(folder_ / "model.safetensors",
                   {{"a", {"U8", {1}, "x"}}, {"w", Float32Tensor({2}, values)}});
  auto weights = Open();
  EXPECT_TRUE(at::equal(*weights->Take("w", {2}), at::tensor({1.0f, 2.0f})));
}

TEST_F(WeightMapTest, JoinsShards) {
  WriteSafetensors(folder_ / "one.safetensors", {{"a", Float32Tensor({1}, {1})}});
  WriteSafetensors(folder_ / "two.safetensors",
                   {{"b", Float32Tensor({1}, {2})}, {"unlisted", Float32Tensor({1}, {3})}});
  WriteIndex(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");

  auto weights = Open();

  ASSERT_THAT(weights, IsOk());
  EXPECT_TRUE(at::equal(*weights->Take("a", {1}), at::tensor({1.0f})));
  EXPECT_TRUE(at::equal(*weights->Take("b", {1}), at::tensor({2.0f})));
  EXPECT_THAT(weights->CheckAllTaken(), IsOk());
}

TEST_F(WeightMapTest, RefusesShardsOutsideItsFolder) {
  WriteSafetensors(folder_ / "one.safetensors", {{"a", Float32Tensor({1}, {1})}});
  std::filesystem::create_symlink("/etc/hostname", folder_ / "link.safetensors");
  for (const char* shard : {"../one.safetensors", "/etc/hostname", "..", "", "link.safetensors"}) {
    WriteIndex(fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", shard));
    EXPECT_THAT(Open(), StatusIs(kDataLoss, HasSubstr("is not a file in the folder"))) << shard;
  }
}

TEST_F(WeightMapTest, RefusesAShardThatLacksAListedTensor) {
  WriteSafetensors(folder_ / "one.safetensors", {{"a", Float32Tensor({1}, {1})}});
  WriteIndex(R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors"}})");
  EXPECT_THAT(Open(), StatusIs(kDataLoss, HasSubstr("one.safetensors: tensor 'b' is missing")));
}

TEST_F(WeightMapTest, SaysWhatIsMissingFromAFolderWithoutWeights) {
  EXPECT_THAT(Open(), StatusIs(kDataLoss, HasSubstr("there is no model.safetensors")));
  std::ofstream(folder_ / "pytorch_model.bin") << "x";
  EXPECT_THAT(Open(), StatusIs(kDataLoss, HasSubstr("pytorch_model.bin is not read")));
}

TEST_F(WeightMapTest, NamesMissingUnexpectedAndMisshapenTensors) {
  WriteSafetensors(folder_ / "model.safetensors", {{"w", Float32Tensor({1, 2}, {1, 2})}});
  auto weights = Open();
  EXPECT_THAT(weights->Take("v", {3}),
              StatusIs(kDataLoss, HasSubstr("tensor 'v' is missing; expected shape [3]")));
  EXPECT_THAT(weights->Take("w", {2, 1}),
              StatusIs(kDataLoss, AllOf(HasSubstr("model.safetensors: tensor 'w'"),
                                        HasSubstr("has shape [1, 2]"), HasSubstr("[2, 1]"))));
  EXPECT_THAT(weights->CheckAllTaken(), StatusIs(kDataLoss, HasSubstr("1 unexpected tensor: w")));
}

TEST_F(WeightMapTest, RefusesIntegerWeights) {
  WriteSafetensors(folder_ / "model.safetensors", {{"w", {"I8", {2}, "ab"}}});
  auto weights = Open();
  EXPECT_THAT(weights->Take("w", {2}), StatusIs(kDataLoss, HasSubstr("has dtype I8")));
}

TEST_F(WeightMapTest, StripsTheFirstPrefixThatIsThereAndIgnoresSuffixes) {
  WriteSafetensors(folder_ / "model.safetensors", {{"model.w", Float32Tensor({1}, {1})},
                                                   {"lm_head.weight", Float32Tensor({1}, {2})},
                                                   {"model.h.attn.bias", Float32Tensor({1}, {3})}});
  auto weights = Open();

  weights->StripPrefix({"transformer.", "model."});
  weights->IgnoreSuffix(".attn.bias");

  EXPECT_TRUE(weights->Has("w"));
  EXPECT_TRUE(weights->Has("lm_head.weight"));
  EXPECT_FALSE(weights->Has("h.attn.bias"));
}

TEST_F(WeightMapTest, TheDigestChangesWithAnyByte) {
  WriteSafetensors(folder_ / "model.safetensors", {{"w", Float32Tensor({1}, {1})}});
  const auto before = WeightDigest(folder_);
  ASSERT_THAT(before, IsOk());
  EXPECT_EQ(before->size(), 64u);
  EXPECT_EQ(*before, *WeightDigest(folder_));

  WriteSafetensors(folder_ / "model.safetensors", {{"w", Float32Tensor({1}, {2})}});

  EXPECT_NE(*before, *WeightDigest(folder_));
}

}  // namespace
}  // namespace ess::checkpoint
