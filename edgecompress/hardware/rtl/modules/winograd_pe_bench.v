`timescale 1ns/1ps
// Feeds a channel pass every clock, compares all results and counts clocks from the first operands
// to the last results. Before that it feeds half of the passes and resets the element.
module winograd_pe_bench;
    localparam GROUPS = @GROUPS;
    localparam PASSES = @PASSES;
    localparam SIDE = @SIDE;
    localparam OMEGA = @OMEGA;
    localparam OUTPUT_BITS = @OUTPUT_BITS;
    localparam TILE_WORD = @TILE_WORD;
    localparam KERNEL_WORD = @KERNEL_WORD;
    localparam EXPECTED_CYCLES = @EXPECTED_CYCLES;  // by the simulator
    localparam MOST_CLOCKS = 4 * EXPECTED_CYCLES + 1000;

    // The clock has no other driver.
    /* verilator lint_off BLKSEQ */

    reg [TILE_WORD-1:0]              tile_words   [0:GROUPS*PASSES-1];
    reg [KERNEL_WORD-1:0]            kernel_words [0:GROUPS*PASSES-1];
    reg [SIDE*SIDE*OUTPUT_BITS-1:0]  expected     [0:GROUPS-1];
    reg [SIDE*SIDE*OUTPUT_BITS-1:0]  wanted;
    reg                              clock, reset, in_valid, in_first, in_last;
    reg [TILE_WORD-1:0]              tiles;
    reg [KERNEL_WORD-1:0]            kernels;
    wire                             out_valid;
    wire [OMEGA*OMEGA*OUTPUT_BITS-1:0] results;
    integer fed, got, cycles, errors, y, x;
    reg     active;  // after a reset

    winograd_pe dut (
        .clock(clock), .reset(reset), .bypass(1'b@BYPASS), .in_valid(in_valid),
        .in_first(in_first), .in_last(in_last), .tiles(tiles), .kernels(kernels),
        .out_valid(out_valid), .results(results)
    );

    always #5 clock = ~clock;

    // The next channel pass, if there is one.
    task feed;
        begin
            in_valid = fed < GROUPS*PASSES;
            if (in_valid) begin
                tiles = tile_words[fed];
                kernels = kernel_words[fed];
                in_first = fed % PASSES == 0;
                in_last = fed % PASSES == PASSES - 1;
                fed = fed + 1;
            end
        end
    endtask

@VERDICT
    // Operands change and results are read in the middle of a clock.
    initial begin
        $readmemh("tiles.hex", tile_words);
        $readmemh("kernels.hex", kernel_words);
        $readmemh("expected.hex", expected);
        clock = 0;
        reset = 1;
        in_valid = 0;
        in_first = 0;
        in_last = 0;
        fed = 0;
        got = 0;
        cycles = 0;
        errors = 0;
        repeat (3) @(negedge clock);
        reset = 0;
        repeat (EXPECTED_CYCLES / 2) begin
            feed;
            @(negedge clock);
        end
        reset = 1;
        in_valid = 0;
        @(negedge clock) reset = 0;
        active = 1'b0;
        repeat (6) begin
            if (out_valid !== 1'b0) active = 1'b1;
            @(negedge clock);
        end
        if (active) begin
            errors = errors + 1;
            $display("FAIL it is active after a reset");
        end
        fed = 0;
        while (got < GROUPS && cycles < MOST_CLOCKS) begin
            feed;
            cycles = cycles + 1;
            if (out_valid === 1'b1) begin
                wanted = expected[got];
                for (y = 0; y < SIDE; y = y + 1)
                    for (x = 0; x < SIDE; x = x + 1)
                        if (results[(y*OMEGA + x)*OUTPUT_BITS +: OUTPUT_BITS]
                            !== wanted[(y*SIDE + x)*OUTPUT_BITS +: OUTPUT_BITS]) begin
                            errors = errors + 1;
                            $display("FAIL result %0d (%0d, %0d): %h, not %h", got, y, x,
                                results[(y*OMEGA + x)*OUTPUT_BITS +: OUTPUT_BITS],
                                wanted[(y*SIDE + x)*OUTPUT_BITS +: OUTPUT_BITS]);
                        end
                got = got + 1;
            end
            @(negedge clock);
        end
        if (got < GROUPS) begin
            errors = errors + 1;
            $display("FAIL only %0d of %0d results after %0d clocks", got, GROUPS, cycles);
        end
        finish;
    end
endmodule
