// Options of flash-linear-attention's models and of S4D that cannot be served: the message names
// the key, its value and what is supported.
#include <string>

#include "gtest/gtest.h"
#include "server/models/architectures.h"
#include "tests/support/random_tensors.h"
#include "tests/support/status_matchers.h"

namespace ess::models {
namespace {

using absl::StatusCode;
using ess::testing::RandomTensors;
using ess::testing::StatusIs;
using ::testing::HasSubstr;

// The tiny config of an architecture with some keys changed.
absl::Status Load(const std::string& model_type, const std::string& changes) {
  const Architecture* const architecture = FindArchitecture(model_type);
  nlohmann::json config = architecture->tiny_config();
  config.update(nlohmann::json::parse(changes));
  RandomTensors tensors(/*seed=*/1);
  return architecture->create(ConfigReader(config), tensors, "cpu").status();
}

TEST(FlaConfigsTest, UnsupportedOptionsNameKeyValueAndWhatIsSupported) {
  const struct {
    std::string model_type, changes, message;
  } cases[] = {
      {"gla", R"({"hidden_act": "powlu"})", "hidden_act is \"powlu\"; supported: swish"},
      {"gla", R"({"attnres_block_size": 4})", "attnres_block_size is 4; supported: null"},
      {"gla", R"({"feature_map": "cubic"})",
       "feature_map is \"cubic\"; supported: gelu, relu, sigmoid, silu, sqrelu, swish"},
      {"gla", R"({"clamp_min": 1.5})", "clamp_min is 1.5; supported: "},
      {"gla", R"({"attn": {"layers": [7], "num_heads": 2}})",
       "attn.layers is [7]; supported: entries from 0 to 2"},
      {"retnet", R"({"feature_map": "cubic"})", "feature_map is \"cubic\"; supported: gelu, "},
      {"delta_net", R"({"qk_norm": "l1"})", "qk_norm is \"l1\"; supported: l2, sum"},
      {"delta_net", R"({"qk_activation": "gelu"})",
       "qk_activation is \"gelu\"; supported: silu, relu, elu, identity"},
      {"delta_net", R"({"num_kv_heads": 2})", "num_kv_heads is 2; supported: as many as num_heads"},
      {"gated_deltanet", R"({"output_gate_activation": "relu"})",
       "output_gate_activation is \"relu\"; supported: swish, silu, sigmoid"},
      {"linear_attn", R"({"feature_map": "cubic"})",
       "feature_map is \"cubic\"; supported: elementwise_product, hedgehog, "},
      {"gsa", R"({"feature_map": "gelu"})", "feature_map is \"gelu\"; supported: swish, relu, t2r"},
      {"gsa", R"({"expand_v": 2.0})", "expand_v is 2.0; supported: 1"},
      {"gsa", R"({"num_slots": 16777216})",
       "num_heads * num_slots is 67108864; supported: 1 to 16777216"},
      {"rwkv6", R"({"hidden_size": 16777216, "hidden_ratio": 1024, "intermediate_size": null})",
       "hidden_size * hidden_ratio is 17179869184; supported: 1 to 16777216"},
      {"rwkv6", R"({"attn": {"layers": [0], "num_heads": 2}})", "supported: null"},
      {"rwkv7", R"({"attn": {"layers": [0], "num_heads": 2}})", "supported: null"},
      {"rwkv7", R"({"value_dim": [16, 16, 32]})", "value_dim is [16,16,32]; supported: "},
      {"rwkv7", R"({"value_dim": 32})", "value_dim is 32; supported: hidden_size = 16"},
      {"rwkv7", R"({"hidden_act": "tanh"})", "hidden_act is \"tanh\"; supported: gelu, relu, "},
      {"s4d", R"({"state_size": 5})", "state_size is 5; supported: even numbers"},
      {"s4d", R"({"discretization": "euler"})",
       "discretization is \"euler\"; supported: zoh, bilinear"},
  };
  for (const auto& [model_type, changes, message] : cases) {
    EXPECT_THAT(Load(model_type, changes),
                StatusIs(StatusCode::kFailedPrecondition, HasSubstr(message)))
        << model_type << " " << changes;
  }
}

TEST(FlaConfigsTest, SizesThatDoNotFitTogetherAreNamed) {
  const struct {
    std::string model_type, changes, message;
  } cases[] = {
      {"gla", R"({"num_kv_heads": 3})", "num_heads is 4, not a multiple of num_kv_heads = 3"},
      {"gla", R"({"expand_k": 0.3})", "hidden_size * expand_k is 4.8, not a whole number"},
      {"gla", R"({"expand_k": 0.125})",
       "hidden_size * expand_k is 2, not a multiple of num_heads = 4"},
      {"gla", R"({"attn": {"layers": [1], "num_heads": 3}})", "attn.num_heads = 3"},
      {"gla", R"({"attn": {"layers": [1], "num_heads": 4, "num_kv_heads": 3}})",
       "attn.num_heads is 4, not a multiple of attn.num_kv_heads = 3"},
      {"gla", R"({"attn": [{"layers": [0, 1], "num_heads": 2}, {"layers": [1], "num_heads": 4}]})",
       "attn[1].layers lists layer 1 a second time"},
      {"retnet", R"({"expand_k": 0.75})", "rotate in pairs"},
      {"gated_deltanet", R"({"num_v_heads": 3})",
       "num_v_heads is 3, not a multiple of num_heads = 2"},
      {"gated_deltanet", R"({"expand_v": 0.3})", "head_dim * expand_v is 1.8"},
      {"hgrn2", R"({"expand_ratio": 5})", "hidden_size is 16, not a multiple of expand_ratio = 5"},
      {"hgrn2", R"({"expand_ratio": null, "num_heads": 3})",
       "hidden_size is 16, not a multiple of num_heads = 3"},
      {"rwkv7", R"({"head_dim": 5})", "hidden_size is 16, not a multiple of head_dim = 5"},
      {"rwkv7", R"({"head_dim": null, "num_heads": 3})",
       "hidden_size is 16, not a multiple of num_heads = 3"},
  };
  for (const auto& [model_type, changes, message] : cases) {
    EXPECT_THAT(Load(model_type, changes), StatusIs(StatusCode::kDataLoss, HasSubstr(message)))
        << model_type << " " << changes;
  }
}

}  // namespace
}  // namespace ess::models
