`timescale 1ns/1ps
// Loads the buffers and the descriptor, begins the convolution, resets the tile in the middle, runs
// it once, compares every result and counts clocks from the first tile that is fed to the last
// result.
module winocnn_tile_bench;
    localparam PIXELS = @PIXELS;
    localparam KERNELS = @KERNELS;
    localparam RESULTS = @RESULTS;
    localparam EXPECTED_CYCLES = @EXPECTED_CYCLES;  // by the cost model
    localparam MOST_CLOCKS = 4 * EXPECTED_CYCLES + 1000;
    localparam ROWS = @ROWS;
    localparam BANK_BITS = @BANK_BITS;
    localparam INPUT_BITS = @INPUT_BITS;
    localparam OUTPUT_BITS = @OUTPUT_BITS;
    localparam KERNEL_WORD = @KERNEL_WORD;
    localparam DESCRIPTOR_BITS = @DESCRIPTOR_BITS;

    // Integers are wider than what is counted; the clock has no other driver.
    /* verilator lint_off WIDTH */
    /* verilator lint_off UNUSED */
    /* verilator lint_off BLKSEQ */

    // Pixels: address (16 bits), image (8), bank (16), code.
    reg  [40+INPUT_BITS-1:0]   pixels     [0:PIXELS-1];
    reg  [KERNEL_WORD-1:0]     kernels    [0:KERNELS*ROWS-1];
    reg  [DESCRIPTOR_BITS-1:0] descriptor [0:0];
    reg  [OUTPUT_BITS-1:0]     expected   [0:RESULTS-1];
    reg  [40+INPUT_BITS-1:0]   pixel;
    reg                        clock, reset, start, load_input, load_kernel;
    reg  [7:0]                 load_image, load_row;
    reg  [BANK_BITS-1:0]       load_bank;
    reg  [15:0]                load_address;
    reg  [INPUT_BITS-1:0]      load_value;
    reg  [KERNEL_WORD-1:0]     load_word;
    wire                       busy, out_valid;
    wire [OUTPUT_BITS-1:0]     out_value;
    integer at, got, cycles, errors;
    reg     active;  // after a reset

    winocnn_tile dut (
        .clock(clock), .reset(reset), .start(start), .bypass(1'b@BYPASS),
        .descriptor(descriptor[0]),
        .load_input(load_input), .load_image(load_image), .load_bank(load_bank),
        .load_kernel(load_kernel), .load_row(load_row), .load_address(load_address),
        .load_value(load_value), .load_word(load_word), .busy(busy), .out_valid(out_valid),
        .out_value(out_value)
    );

    always #5 clock = ~clock;

@VERDICT
    // Inputs change and results are read in the middle of a clock.
    initial begin
        $readmemh("pixels.hex", pixels);
        $readmemh("kernels.hex", kernels);
        $readmemh("descriptor.hex", descriptor);
        $readmemh("expected.hex", expected);
        clock = 0;
        reset = 1;
        start = 0;
        load_input = 0;
        load_kernel = 0;
        got = 0;
        cycles = 0;
        errors = 0;
        repeat (@RESET_CLOCKS) @(negedge clock);
        reset = 0;
        for (at = 0; at < PIXELS; at = at + 1) begin
            pixel = pixels[at];
            load_address = pixel[15:0];
            load_image = pixel[23:16];
            load_bank = pixel[24 +: BANK_BITS];
            load_value = pixel[40 +: INPUT_BITS];
            load_input = 1;
            @(negedge clock);
        end
        load_input = 0;
        for (at = 0; at < KERNELS*ROWS; at = at + 1) begin
            load_address = at / ROWS;
            load_row = at % ROWS;
            load_word = kernels[at];
            load_kernel = 1;
            @(negedge clock);
        end
        load_kernel = 0;
        start = 1;
        @(negedge clock);
        start = 0;
        repeat (EXPECTED_CYCLES / 2) @(negedge clock);
        reset = 1;
        @(negedge clock);
        reset = 0;
        active = 1'b0;
        repeat (@RESET_CLOCKS) begin
            if ((busy | out_valid) !== 1'b0) active = 1'b1;
            @(negedge clock);
        end
        if (active) begin
            errors = errors + 1;
            $display("FAIL it is active after a reset");
        end
        start = 1;
        @(negedge clock);
        start = 0;
        while (got < RESULTS && cycles < MOST_CLOCKS) begin
            cycles = cycles + 1;
            if (out_valid === 1'b1) begin
                if (out_value !== expected[got]) begin
                    errors = errors + 1;
                    $display("FAIL result %0d: %h, not %h", got, out_value, expected[got]);
                end
                got = got + 1;
            end
            if (got < RESULTS) @(negedge clock);
        end
        @(negedge clock);
        if (got < RESULTS) begin
            errors = errors + 1;
            $display("FAIL only %0d of %0d results after %0d clocks", got, RESULTS, cycles);
        end else if (busy !== 1'b0 || out_valid !== 1'b0) begin
            errors = errors + 1;
            $display("FAIL it does not end");
        end
        finish;
    end
endmodule
