// Tokenizes for tests/parity/test_tokenizer_parity.py: reads one JSON object a line from standard
// input, {"text": "...", "add_special_tokens": true}, and prints {"ids": [...], "texts": [...]}.
//
//   tokenize FOLDER < requests.jsonl
#include <iostream>
#include <string>

#include "nlohmann/json.hpp"
#include "server/tokenization/tokenizer.h"

int main(int argument_count, char** arguments) {
  if (argument_count != 2) {
    std::cerr << "usage: tokenize FOLDER < requests.jsonl\n";
    return 2;
  }
  const auto tokenizer = ess::tokenization::Tokenizer::Load(arguments[1]);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status().ToString() << "\n";
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);) {
    const nlohmann::json request = nlohmann::json::parse(line);
    const auto ids = (*tokenizer)
                         ->Encode(request.at("text").get<std::string>(),
                                  request.at("add_special_tokens").get<bool>());
    if (!ids.ok()) {
      std::cerr << ids.status().ToString() << "\n";
      return 1;
    }
    const nlohmann::json answer = {{"ids", *ids}, {"texts", (*tokenizer)->TokenTexts(*ids)}};
    std::cout << answer.dump() << "\n";
  }
  return 0;
}
