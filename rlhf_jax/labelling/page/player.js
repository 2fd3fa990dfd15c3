/** Two clips on two canvases, moved by one clock so that they stay in step. */

const PAUSE_S = 0.7; // Time on the last frame before the clips start again.
const LONGEST_TICK_S = 0.1; // After a stall, such as a hidden tab, the clips go on and do not jump.
const SPEEDS = [0.25, 0.5, 1, 2];

export class Player {
  #canvases;
  #onChange;
  #clips = null;
  #position = 0; // In frames; it runs past the last frame during the pause.
  #drawn = -1;
  #before = null;
  #fps = 20;

  playing = true;
  speed = 1;

  /**
   * @param {{left: HTMLCanvasElement, right: HTMLCanvasElement}} canvases
   * @param {() => void} onChange called when the frame, the speed or playing has changed.
   */
  constructor(canvases, onChange) {
    this.#canvases = canvases;
    this.#onChange = onChange;
    new ResizeObserver(() => this.#draw(true)).observe(canvases.left);
    requestAnimationFrame((now) => this.#tick(now));
  }

  /** How many frames the clips have; 0 if there are none. */
  get frames() {
    return this.#clips?.pair.frames ?? 0;
  }

  get frame() {
    return Math.max(0, Math.min(Math.floor(this.#position), this.frames - 1));
  }

  /** Shows a pair's clips from their first frame. */
  load(clips, fps) {
    this.#clips = clips;
    this.#fps = fps;
    this.#position = 0;
    this.playing = true; // Also after a pause: the next pair has not been seen yet.
    this.#draw(true);
  }

  clear() {
    this.#clips = null;
    for (const [side, canvas] of Object.entries(this.#canvases)) {
      canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
      canvas.setAttribute("aria-label", `${side} clip, not loaded`);
    }
    this.#onChange();
  }

  toggle() {
    this.playing = !this.playing;
    if (this.playing && this.frame === this.frames - 1) this.#position = 0;
    this.#onChange();
  }

  /** Stops at a frame; outside the clip it wraps around. */
  seek(frame) {
    if (!this.#clips) return;
    this.playing = false;
    this.#position = (frame + this.frames) % this.frames;
    this.#draw(true);
  }

  setSpeed(speed) {
    this.speed = speed;
    this.#onChange();
  }

  faster(steps) {
    const index = SPEEDS.indexOf(this.speed) + steps;
    this.setSpeed(SPEEDS[Math.max(0, Math.min(index, SPEEDS.length - 1))]);
  }

  #tick(now) {
    const seconds = Math.min((now - (this.#before ?? now)) / 1000, LONGEST_TICK_S);
    this.#before = now;
    if (this.#clips && this.playing) {
      const rate = this.#fps * this.speed;
      this.#position += seconds * rate;
      if (this.#position >= this.frames + PAUSE_S * rate) this.#position = 0;
      this.#draw(false);
    }
    requestAnimationFrame((next) => this.#tick(next));
  }

  #draw(again) {
    if (!this.#clips || (!again && this.frame === this.#drawn)) return;
    this.#drawn = this.frame;
    for (const [side, canvas] of Object.entries(this.#canvases)) {
      drawFrame(canvas, this.#clips[side], this.#clips.pair, this.frame);
      canvas.setAttribute("aria-label", `${side} clip, frame ${this.frame + 1} of ${this.frames}`);
    }
    this.#onChange();
  }
}

/**
 * Copies one picture of a sheet onto a canvas. It is enlarged by a whole factor, without smoothing, to at least the
 * pixels the screen has there; the browser then scales down what is too much. So edges stay crisp and even.
 */
function drawFrame(canvas, sheet, { columns, size }, frame) {
  const factor = Math.max(1, Math.ceil((canvas.clientWidth * devicePixelRatio) / size));
  const side = size * factor;
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(sheet, (frame % columns) * size, Math.floor(frame / columns) * size, size, size, 0, 0, side, side);
}
