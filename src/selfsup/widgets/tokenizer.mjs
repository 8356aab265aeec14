// BERT's tokenizer in plain JavaScript: reads a tokenizer.json and gives the words and the ids that transformers gives.

const REMOVED = /[\p{Cc}\p{Cf}\p{Co}\ufffd]/u;
const SPACE = /\p{White_Space}/u;
const PUNCTUATION = /[\p{P}!-/:-@[-`{-~]/u;
const CHINESE = /[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/u;
const LONGEST_WORD = 100;

/** BERT's WordPiece on lower-cased words; a word-level tokenizer is the case in which every word is one piece. */
export class Tokenizer {
  /** @param {object} json  the parsed tokenizer.json, with a WordPiece or WordLevel model */
  constructor(json) {
    const { model, normalizer = {}, added_tokens = [] } = json;
    if (!["WordPiece", "WordLevel"].includes(model?.type)) {
      throw new Error(`the engine reads WordPiece and WordLevel tokenizers, not ${model?.type}`);
    }
    this.vocab = new Map(Object.entries(model.vocab));
    for (const { content, id } of added_tokens) this.vocab.set(content, id);
    this.tokens = [];
    for (const [token, id] of this.vocab) this.tokens[id] = token;
    this.special = added_tokens.filter((token) => token.special).map((token) => token.content);
    const escaped = this.special.map((token) => token.replace(/[^\w]/g, "\\$&"));
    this.specials = new RegExp(`(${escaped.join("|") || "(?!)"})`);
    this.unknown = this.vocab.get(model.unk_token ?? "[UNK]");
    this.pieces = model.type === "WordPiece";
    this.prefix = model.continuing_subword_prefix ?? "##";
    this.longest = model.max_input_chars_per_word ?? LONGEST_WORD;
    const rules = (normalizer?.normalizers ?? [normalizer]).map((part) => part ?? {});
    const bert = rules.find((part) => part.type === "BertNormalizer");
    this.clean = bert?.clean_text ?? false;
    this.chinese = bert?.handle_chinese_chars ?? false;
    this.lower = bert?.lowercase ?? rules.some((part) => part.type === "Lowercase");
    this.strip = bert ? bert.strip_accents ?? this.lower : rules.some((part) => part.type === "StripAccents");
  }

  /** The id of a token that must be there, such as "[MASK]". */
  id(token) {
    if (!this.vocab.has(token)) throw new Error(`the tokenizer has no ${token}`);
    return this.vocab.get(token);
  }

  /** Words of a text, in order: {text: as written, ids: its pieces}. Special tokens are words, too. */
  words(text) {
    const words = [];
    for (const part of text.split(this.specials)) {
      if (this.special.includes(part)) words.push({ text: part, ids: [this.vocab.get(part)] });
      else for (const word of this.#split(part)) words.push({ text: word.written, ids: this.#ids(word.letters) });
    }
    return words;
  }

  #split(text) {
    const words = [];
    let word = null;
    const end = () => { if (word) words.push(word); word = null; };
    for (const written of text) {
      const alone = this.chinese && CHINESE.test(written);
      let letters = written;
      if (this.clean && !/[\t\n\r]/.test(written) && REMOVED.test(written)) letters = "";
      if (this.strip) letters = letters.normalize("NFD").replace(/\p{Mn}/gu, "");
      if (this.lower) letters = Array.from(letters, (letter) => letter.toLowerCase()).join("");
      if (alone) end();
      if (!letters && word) word.written += written;
      for (const letter of letters) {
        if (SPACE.test(letter)) end();
        else if (PUNCTUATION.test(letter)) { end(); words.push({ written, letters: [letter] }); }
        else {
          word ??= { written: "", letters: [] };
          word.letters.push(letter);
        }
      }
      if (letters && word) word.written += written;
      if (alone) end();
    }
    end();
    return words;
  }

  #ids(letters) {
    if (!this.pieces) return [this.vocab.get(letters.join("")) ?? this.unknown];
    if (letters.length > this.longest) return [this.unknown];
    const ids = [];
    for (let start = 0, end; start < letters.length; start = end) {
      let id;
      for (end = letters.length; end > start; end--) {
        id = this.vocab.get((start ? this.prefix : "") + letters.slice(start, end).join(""));
        if (id !== undefined) break;
      }
      if (id === undefined) return [this.unknown];
      ids.push(id);
    }
    return ids;
  }
}
