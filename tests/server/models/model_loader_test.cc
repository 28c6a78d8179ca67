// What a folder that cannot be served says.
#include "server/models/model_loader.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "server/models/mamba_ssm_config.h"
#include "server/models/sequence_model.h"
#include "server/tokenization/tokenizer.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/status_matchers.h"

namespace ess::models {
namespace {

using absl::StatusCode;
using ess::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

class ModelLoaderTest : public ::testing::Test {
 protected:
  ModelLoaderTest()
      : folder_(ess::testing::FreshFolder(
            ::testing::TempDir(),
            std::string("model_loader_") +
                ::testing::UnitTest::GetInstance()->current_test_info()->name())) {}
  ~ModelLoaderTest() override { std::filesystem::remove_all(folder_); }

  absl::Status LoadWithConfig(const std::string& config) const {
    std::ofstream(folder_ / "config.json") << config;
    return LoadModelFolder(folder_, {}).status();
  }

  std::filesystem::path folder_;
};

TEST_F(ModelLoaderTest, AFolderWithoutAConfigIsDataLoss) {
  EXPECT_THAT(LoadModelFolder(folder_, {}),
              StatusIs(StatusCode::kDataLoss,
                       AllOf(HasSubstr("config.json"), Not(HasSubstr(folder_.string())))));
}

TEST_F(ModelLoaderTest, AConfigThatIsNotAnObjectIsDataLoss) {
  EXPECT_THAT(LoadWithConfig("[1, 2]"), StatusIs(StatusCode::kDataLoss, HasSubstr("config.json")));
  EXPECT_THAT(LoadWithConfig("{\"model_type\": "),
              StatusIs(StatusCode::kDataLoss, HasSubstr("config.json")));
}

TEST_F(ModelLoaderTest, AnUnsupportedModelTypeNamesTheSupportedOnes) {
  EXPECT_THAT(
      LoadWithConfig(R"({"model_type": "bert"})"),
      StatusIs(StatusCode::kFailedPrecondition, AllOf(HasSubstr("model_type"), HasSubstr("bert"),
                                                      HasSubstr("gpt2"), HasSubstr("llama"))));
  EXPECT_THAT(LoadWithConfig("{}"), StatusIs(StatusCode::kDataLoss, HasSubstr("model_type")));
}

TEST_F(ModelLoaderTest, QuantizedCheckpointsAreRefused) {
  EXPECT_THAT(LoadWithConfig(R"({"model_type": "llama", "quantization_config": {"bits": 4}})"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("quantization_config")));
}

TEST_F(ModelLoaderTest, AFolderWithoutWeightsIsDataLoss) {
  EXPECT_THAT(LoadWithConfig(R"({"model_type": "llama"})"),
              StatusIs(StatusCode::kDataLoss, HasSubstr("model.safetensors")));
}

// Options of the two architectures that cannot be served: the config is read before any tensor.
TEST_F(ModelLoaderTest, UnsupportedOptionsNameKeyValueAndWhatIsSupported) {
  ess::testing::WriteSafetensors(folder_ / "model.safetensors", {});
  EXPECT_THAT(LoadWithConfig(R"({"model_type": "llama", "hidden_act": "mish"})"),
              StatusIs(StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("hidden_act"), HasSubstr("mish"), HasSubstr("silu"))));
  EXPECT_THAT(LoadWithConfig(R"({"model_type": "llama", "rope_scaling": {"rope_type": "spiral"}})"),
              StatusIs(StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("rope_type"), HasSubstr("spiral"), HasSubstr("llama3"))));
  EXPECT_THAT(LoadWithConfig(R"({"model_type": "gpt2", "activation_function": "mish"})"),
              StatusIs(StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("activation_function"), HasSubstr("gelu_new"))));
  EXPECT_THAT(LoadWithConfig(R"({"model_type": "gpt2", "add_cross_attention": true})"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("add_cross_attention")));
}

TEST_F(ModelLoaderTest, ContradictingSizesAreDataLoss) {
  ess::testing::WriteSafetensors(folder_ / "model.safetensors", {});
  EXPECT_THAT(
      LoadWithConfig(R"({"model_type": "llama", "hidden_size": 33, "num_attention_heads": 4})"),
      StatusIs(StatusCode::kDataLoss,
               AllOf(HasSubstr("hidden_size is 33"), HasSubstr("num_attention_heads = 4"))));
  EXPECT_THAT(
      LoadWithConfig(
          R"({"model_type": "llama", "num_attention_heads": 32, "num_key_value_heads": 5})"),
      StatusIs(StatusCode::kDataLoss, HasSubstr("num_key_value_heads = 5")));
  EXPECT_THAT(LoadWithConfig(R"({"model_type": "gpt2", "n_embd": 10, "n_head": 3})"),
              StatusIs(StatusCode::kDataLoss, HasSubstr("n_head = 3")));
  EXPECT_THAT(
      LoadWithConfig(R"({"model_type": "granitemoehybrid", "layers_block_type": ["mamba"]})"),
      StatusIs(StatusCode::kDataLoss, HasSubstr("layers_block_type has 1 entries; expected 32")));
}

TEST_F(ModelLoaderTest, ConfigsOfMambaSsmThatTransformersCannotExpressAreRefused) {
  const auto load = [&](const std::string& rest) {
    return LoadWithConfig(R"({"d_model": 64, "n_layer": 2, "vocab_size": 50)" + rest + "}");
  };
  const auto refused = [](const std::string& key, const std::string& supported) {
    return StatusIs(StatusCode::kFailedPrecondition,
                    AllOf(HasSubstr("config.json: " + key), HasSubstr("supported: " + supported)));
  };
  EXPECT_THAT(load(R"(, "rms_norm": false)"), refused("rms_norm is false", "true"));
  EXPECT_THAT(load(R"(, "d_intermediate": 128)"), refused("d_intermediate is 128", "0"));
  EXPECT_THAT(load(R"(, "attn_layer_idx": [1])"), refused("attn_layer_idx is [1]", "[]"));
  EXPECT_THAT(load(R"(, "ssm_cfg": {"layer": "Mamba3"})"),
              refused("ssm_cfg.layer is \"Mamba3\"", "Mamba1, Mamba2"));
  const auto load_mamba2 = [&](const std::string& option) {
    return load(R"(, "ssm_cfg": {"layer": "Mamba2", )" + option + "}");
  };
  EXPECT_THAT(load_mamba2(R"("headdim": 48)"), refused("ssm_cfg.headdim is 48", "divisors of 128"));
  EXPECT_THAT(load_mamba2(R"("d_ssm": 64)"), refused("ssm_cfg.d_ssm is 64", "128"));
  EXPECT_THAT(load_mamba2(R"("rmsnorm": false)"), refused("ssm_cfg.rmsnorm is false", "true"));
  EXPECT_THAT(load_mamba2(R"("D_has_hdim": true)"), refused("ssm_cfg.D_has_hdim is true", "false"));
}

TEST(MambaSsmConfigTest, TheHeadIsTiedAsTheFormatSays) {
  const auto tied = [](const std::string& rest) {
    const auto config = nlohmann::json::parse(R"({"d_model": 64, "n_layer": 2)" + rest + "}");
    return TranslateMambaSsmConfig(ConfigReader(config))->values.at("tie_word_embeddings");
  };
  const auto codestral = nlohmann::json::parse(R"({"dim": 64, "n_layers": 2, "n_groups": 1})");

  EXPECT_EQ(tied(""), true);
  EXPECT_EQ(tied(R"(, "ssm_cfg": {"layer": "Mamba2"})"), true);
  EXPECT_EQ(tied(R"(, "tie_embeddings": false)"), false);
  EXPECT_EQ(TranslateMistralMambaConfig(ConfigReader(codestral))->values.at("tie_word_embeddings"),
            false);
}

TEST_F(ModelLoaderTest, ParametersOfCodestralMambaAreNamedInTheirFile) {
  std::ofstream(folder_ / "params.json") << R"({"dim": 64, "n_layers": 2, "n_groups": 0})";

  EXPECT_EQ(FindConfig(folder_), folder_ / "params.json");
  EXPECT_THAT(LoadModelFolder(folder_, {}).status(),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("params.json: n_groups is 0")));
}

TEST_F(ModelLoaderTest, ErrorsOfTranslatedConfigsNameTheFileAndItsOwnKeys) {
  const auto load = [&](const std::string& file, const std::string& text) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ / file) << text;
    return LoadModelFolder(folder_, {.random_init_seed = 1}).status();
  };
  const struct {
    std::string file, text;
    StatusCode code;
    std::string message;
  } cases[] = {
      {"params.json", R"({"dim": 64, "n_layers": 2, "n_groups": 3})", StatusCode::kDataLoss,
       "params.json: 2 * dim / 64 is 2, not a multiple of n_groups = 3"},
      {"params.json", R"({"dim": 50, "n_layers": 2, "n_groups": 1})",
       StatusCode::kFailedPrecondition, "params.json: 2 * dim is 100; supported: multiples of 64"},
      {"params.json", R"({"dim": 16777216, "n_layers": 2, "n_groups": 1})",
       StatusCode::kFailedPrecondition, "params.json: dim is 16777216; supported: 2 * dim up to "},
      {"config.json",
       R"({"d_model": 64, "n_layer": 2, "pad_vocab_size_multiple": 16777215)"
       R"(, "vocab_size": 16777216})",
       StatusCode::kFailedPrecondition,
       "config.json: vocab_size in multiples of pad_vocab_size_multiple is 33554430; "},
      {"config.json",
       R"({"d_model": 64, "n_layer": 2, "ssm_cfg": )"
       R"({"layer": "Mamba2", "headdim": 32, "ngroups": 3}})",
       StatusCode::kDataLoss,
       "config.json: 2 * d_model / ssm_cfg.headdim is 4, not a multiple of ssm_cfg.ngroups = 3"},
  };
  for (const auto& [file, text, code, message] : cases) {
    EXPECT_THAT(load(file, text), StatusIs(code, HasSubstr(message))) << text;
  }
}

TEST_F(ModelLoaderTest, TheModelTypeIsReadWithoutTheWeights) {
  std::ofstream(folder_ / "config.json") << R"({"model_type": "mamba"})";

  EXPECT_EQ(*ReadModelType(folder_), "mamba");
}

TEST(SupportedModelTypesTest, ListsTheTableByName) {
  const std::vector<std::string> model_types = SupportedModelTypes();

  EXPECT_THAT(model_types, IsSupersetOf({"gpt2", "llama", "mamba"}));
  EXPECT_TRUE(std::is_sorted(model_types.begin(), model_types.end()));
}

}  // namespace
}  // namespace ess::models
